"""The checks of simulate_scale.py: what all ranks of a job must agree on, and read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scale_job import Job, make_order
from streaming.base.partition import get_partitions
from streaming.base.world import World
from synthetic import SyntheticDataset

from attent_stream.order.streaming_order import StreamingOrder
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED
from attent_stream.window.layout import LESSON, lane_labels, window_rows


@dataclass(frozen=True, kw_only=True)
class Run:
    """A rank's roles and ids of each step, choices, lesson weights and number of gathers."""

    roles: list[int]
    ids: list[NDArray[np.int64]]
    choices: list[Choice]
    weights: list[NDArray[np.float32]]
    gathers: int


def places(
    job: Job, order: StreamingOrder, data: SyntheticDataset
) -> tuple[NDArray, NDArray, NDArray]:
    """Return each sample's node and canonical node, and each slot's canonical node.

    They come from Streaming alone. Its unshuffled partitions tell the canonical node of a slot,
    because a shuffle moves samples only within a canonical node.
    """
    plain = get_partitions(
        "relaxed",
        job.samples,
        data.num_canonical_nodes,
        job.nodes,
        job.ranks,
        1,
        job.batch_size,
        0,
        None,
    )
    plain = plain.transpose(3, 2, 0, 1, 4).reshape(plain.shape[3], -1)
    owner = (plain * data.num_canonical_nodes // job.samples).astype(np.int32)
    node = np.full(job.samples, -1, np.int32)
    canonical = np.full(job.samples, -1, np.int32)
    slots = np.arange(job.row) // (job.ranks * job.batch_size)
    for row in range(order.full):
        node[order.rows[row]] = slots
        canonical[order.rows[row]] = owner[row]
    same = bool((owner[: order.full] == owner[0]).all())
    return node, canonical, owner[0] if same else np.full(job.row, -1, np.int32)


def check(
    job: Job, order: StreamingOrder, data: SyntheticDataset, runs: dict[int, Run]
) -> dict[str, Any]:
    """Check all ranks, and count violations, which must be 0, and checked items."""
    node, canonical, slot_owner = places(job, order, data)
    first = next(iter(runs.values()))
    layout = order.layout
    wrong = dict.fromkeys(
        (
            "unequal counts",
            "other node",
            "other canonical node",
            "not once",
            "weights",
            "ranks disagree",
        ),
        0,
    )
    seen = {
        "windows": len(first.choices),
        "candidates": 0,
        "lessons": 0,
        "dropped": 0,
        "scored windows": 0,
    }
    reading = np.arange(job.row).reshape(layout.ranks, layout.batch_size)
    expected_node = np.arange(layout.ranks) // job.ranks
    # Otherwise a lane has several canonical nodes of one node.
    finest = layout.node_lanes == data.num_canonical_nodes
    for choice in first.choices:
        ids, window, units = choice.ids, choice.window, choice.decision.units
        begin, end = window_rows(order.full, 0, job.window, window.index)
        stock = np.sort(np.asarray(order.rows[begin:end], np.int64).reshape(-1))
        # The candidates are the next slice of the order.
        wrong["not once"] += int((np.sort(window.ids.reshape(-1)) != stock).sum())
        kept = np.sort(choice.places.reshape(-1))
        wrong["not once"] += int((np.diff(kept) == 0).sum())
        wrong["not once"] += int((~np.isin(ids.reshape(-1), stock)).sum())
        dropped = int((~choice.kept).sum())
        wrong["not once"] += abs((len(stock) - dropped) * units - len(kept))
        wrong["weights"] += int((~np.isfinite(choice.weights) | (choice.weights < 0)).sum())
        seen["candidates"] += len(stock)
        seen["lessons"] += len(kept)
        seen["dropped"] += dropped
        seen["scored windows"] += choice.decision.by == SCORED
        read = np.zeros(job.samples, np.int8)
        for rank in range(layout.ranks):
            lessons, candidates = of_rank(order, ids, units, rank), order.of_rank(window.ids, rank)
            shape = choice.decision.lessons, job.batch_size * units
            wrong["unequal counts"] += lessons.shape != shape
            wrong["unequal counts"] += candidates.shape != (end - begin, job.batch_size)
            wrong["other node"] += int((node[lessons] != expected_node[rank]).sum())
            wrong["other node"] += int((node[candidates] != expected_node[rank]).sum())
            weights = of_rank(order, choice.weights, units, rank)
            wrong["weights"] += weights.shape != lessons.shape
            if finest:
                owner = slot_owner[reading[rank]].repeat(units)
                wrong["other canonical node"] += int((canonical[lessons] != owner).sum())
            read[candidates] += 1
            read[lessons] += 2 * (units == 1)  # ranks share the pieces of a sample
        wrong["not once"] += int((read[stock] % 2 != 1).sum()) + int((read >= 4).sum())
    for rank, run in runs.items():
        wrong["unequal counts"] += (run.roles, run.gathers) != (first.roles, first.gathers)
        sizes = [job.batch_size * choice.decision.units for choice in run.choices]
        rows = [choice.decision.lessons for choice in run.choices]
        tail = [job.batch_size] * (len(run.weights) - sum(rows))
        wrong["weights"] += [len(part) for part in run.weights] != [
            *np.repeat(sizes, rows).tolist(),
            *tail,
        ]
        same = all(
            np.array_equal(a.ids, b.ids) for a, b in zip(run.choices, first.choices, strict=True)
        )
        wrong["ranks disagree"] += not same
        lessons = [
            row
            for choice in first.choices
            for row in of_rank(order, choice.ids, choice.decision.units, rank)
        ]
        mine = [ids for role, ids in zip(run.roles, run.ids, strict=True) if role == LESSON]
        wrong["ranks disagree"] += not all(map(np.array_equal, mine, lessons))
    tails = {
        len([ids for ids in order.tail(rank) if len(ids) == job.batch_size])
        for rank in range(layout.ranks)
    }
    wrong["unequal counts"] += len(tails) - 1
    return {"wrong": wrong, "seen": seen}


def of_rank(order: StreamingOrder, values: NDArray, units: int, rank: int) -> NDArray:
    """Return a rank's part of values of units, shape (rows, batch_size * units)."""
    rows = values.reshape(len(values), -1, units)
    return order.of_rank(rows, rank).reshape(len(values), -1)


def check_elastic(job: Job, order: StreamingOrder) -> int:
    """Count slots with a split lane or another sample after a resume on half the nodes."""
    if job.nodes % 2:
        return 0
    half = job.data()
    half.batch_size, half.initial_physical_nodes = 2 * job.batch_size, job.nodes
    other = make_order(half, World(job.nodes // 2, job.ranks, 1, 0))
    rows = min(order.full, other.full)
    differ = int((order.window(0, rows) != other.window(0, rows)).sum())
    lanes = lane_labels(order.window(0, 1), order.layout, order.stream_starts)[0]
    nodes = np.arange(job.row) % (job.nodes // 2)
    low, high = np.full(lanes.max() + 1, job.nodes), np.zeros(lanes.max() + 1, np.int64)
    np.minimum.at(low, lanes, nodes)
    np.maximum.at(high, lanes, nodes)
    return differ + int((low != high).sum())
