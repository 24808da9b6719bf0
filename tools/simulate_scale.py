"""Simulate the plan of a job of many nodes: check its invariants, and measure its cost for a rank.

    python tools/simulate_scale.py [--nodes 1024] [--ranks 8] [--batch-size 8]
                                   [--shuffle-algo py1e] [--select hard] ...

There is no model: the order is Streaming's own for that many nodes, and scores are a function of
the sample ids. Some ranks run the whole epoch as in a job (``TaughtEpoch`` with a board, every
scoring pass, every choice). Checks cover every rank: all read equally many lessons and candidates,
and only samples of their own node and canonical node. One rank scores each candidate, which is kept
or dropped once. With ``--pieces`` and ``--balance`` a rank balances its own panels of a window, and
the slots of other ranks keep their order, so run one probe. No network is simulated. The last line
is a JSON object; the exit status is 1 if a check fails.

CPU seconds are those of this process (``time.process_time``) with one thread. Memory is the peak of
numpy's and Python's allocations (tracemalloc) without the order.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.partition import get_partitions
from streaming.base.world import World

from attent_stream.arrange.arrangement import Selected
from attent_stream.arrange.arrangements import ARRANGEMENTS, Arrangements
from attent_stream.arrange.balance import Balance
from attent_stream.base.gather import RankGroup
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Clock, Span
from attent_stream.memory.ledger import SampleLedger
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import StreamingOrder, generate_rows
from attent_stream.store.index_check import check_stream
from attent_stream.teach.board import Board
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.position import Position
from attent_stream.teach.teacher import Teacher, TeacherSettings
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED
from attent_stream.window.layout import CANDIDATE, LESSON, lane_labels, window_rows
from attent_stream.window.metrics import choice_metrics
from attent_stream.window.selectors import SELECTORS

SHARD = 4096  # Samples in a shard.
# Streaming's default number of canonical nodes per node.
CANONICAL = {"py1e": 1, "py1br": 1, "py1s": 64, "py2s": 64, "naive": 1}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The simulated job: nodes, ranks of a node, samples of a rank and step, window rows, ..."""

    nodes: int
    ranks: int
    batch_size: int
    shuffle_algo: str
    window: int
    windows: int
    gap: int
    keep: float
    select: str
    probes: int
    shards: int
    pieces: float
    balance: bool

    @property
    def arrange(self) -> dict[str, Any]:
        """The arrangements by name."""
        cut = {"pieces": self.pieces} if self.pieces < 1 else {}
        return cut | ({ONE_OF_MANY: "tokens"} if self.balance else {})

    @property
    def row(self) -> int:
        """Samples in a global batch."""
        return self.nodes * self.ranks * self.batch_size

    @property
    def samples(self) -> int:
        """Samples of full windows, a short one and a partial batch without repeated samples."""
        rest = self.batch_size // 2 * self.nodes * self.ranks
        rest -= rest % self.canonical_nodes
        return self.row * (self.window * (self.windows - 1) + self.window // 2) + rest

    @property
    def canonical_nodes(self) -> int:
        """Streaming's default number for the shuffle."""
        return CANONICAL[self.shuffle_algo] * self.nodes


class OneOfManyRanks(Balance):
    """Balances as one rank does. What other ranks order stays as it is."""

    def arranging(self, selected: Selected, note: int) -> Any:
        """See ``Arrangement``."""
        if selected.features is None:
            return selected.places, {}
        steps = super().arranging(selected, note)
        own = next(steps)
        yield own
        places = np.where(own == 0, selected.places, own)
        # The first unit is 0, too: if it was moved, what was in its new slot is there twice.
        twice = np.flatnonzero(np.bincount(places.reshape(-1)) == 2)
        places[(own == 0) & np.isin(places, twice)] = 0
        return places, {}


class OneOfMany(RankGroup):
    """A rank without the others."""

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's part."""
        return values


ONE_OF_MANY = "one_of_many"
ARRANGEMENTS.known[ONE_OF_MANY] = OneOfManyRanks
KNOWN = np.random.default_rng(0).integers(0, 20, (1 << 12, 512)).astype(np.float16)


class SyntheticData:
    """The attributes of a StreamingDataset of one stream that its order depends on."""

    partition_algo, batching_method, shuffle, shuffle_seed, initial_physical_nodes = (
        "relaxed",
        "random",
        True,
        9176,
        None,
    )

    def __init__(self, job: Job) -> None:
        self.num_canonical_nodes = job.canonical_nodes
        self.batch_size, self.epoch_size, self.shuffle_algo = (
            job.batch_size,
            job.samples,
            job.shuffle_algo,
        )
        self.shuffle_block_size = max(4_000_000 // self.num_canonical_nodes, 1 << 18)

    def resample_streams(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard sizes and sample ids, each sample once."""
        full, rest = divmod(self.epoch_size, SHARD)
        return np.array([SHARD] * full + [rest] * (rest > 0), np.int64), np.arange(self.epoch_size)


def make_order(data: SyntheticData, world: World) -> StreamingOrder:
    """Build Streaming's order of the job, as ``open_order`` does on a node."""
    with warnings.catch_warnings():
        # Streaming warns of blocks smaller than a shard.
        warnings.simplefilter("ignore")
        rows = generate_rows(data, world, 0).astype(np.int32)
    partial = np.flatnonzero(rows.min(axis=1) < 0)
    now, origin = layouts(data, world)
    full = int(partial[0]) if len(partial) else len(rows)
    return StreamingOrder(
        epoch=0,
        rows=rows,
        full=full,
        layout=now,
        origin=origin,
        stream_starts=np.zeros(1, np.int64),
    )


def make_teacher(job: Job) -> Teacher:
    """Build a teacher with a constant keep from the first lesson on."""
    settings = TeacherSettings(
        keep=parse_share(job.keep),
        select=job.select,
        temperature=1.0,
        interval=parse_interval("dense"),
        phases=Phases(warmup=Span.parse("0ba"), anneal=Span.parse("0ba")),
        seed=17,
        arrangements=Arrangements.parse(job.arrange),
    )
    return Teacher(
        settings,
        clock=lambda ahead, epoch, share: Clock(ep=epoch + share, ba=ahead, sp=0, tok=0, dur=0),
    )


def score_of(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return scores in [0, 1) that no shuffle resembles, in the shape of ``ids``."""
    return (ids * 2654435761 % 2**32 / 2**32).astype(np.float32)


@dataclass
class Costs:
    """CPU seconds of the calling thread for each call by name, and sizes in bytes."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        """Return ``call()``, and record its time."""
        start = time.thread_time()
        result = call()
        self.spent(name, time.thread_time() - start)
        return result

    def spent(self, name: str, seconds: float) -> None:
        """Record seconds that were measured otherwise."""
        self.seconds.setdefault(name, []).append(seconds)

    def size(self, name: str, value: int) -> None:
        """Record the largest size."""
        self.sizes[name] = max(self.sizes.get(name, 0), value)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A rank's roles and ids of each step, choices, lesson weights and number of gathers."""

    roles: list[int]
    ids: list[NDArray[np.int64]]
    choices: list[Choice]
    weights: list[NDArray[np.float32]]
    gathers: int


def run_rank(job: Job, order: StreamingOrder, rank: int, costs: Costs) -> Run:
    """Run the epoch as the main process of a rank."""
    board = Board(
        steps=2 * job.window, batch_size=job.batch_size, ahead=2 * job.window * job.batch_size
    )
    costs.size("board", board.nbytes)
    teacher = make_teacher(job)
    epoch = costs.time(
        "start",
        lambda: TaughtEpoch(
            order, teacher, board, rank=rank, window=job.window, gap=job.gap, drop_last=True
        ),
    )
    roles, ids, weights, inbox, gathers = [], [], [], [], 0
    choices, group = epoch.take_choices(), OneOfMany(rank=rank, ranks=order.layout.ranks)
    while not epoch.done:
        epoch.expect()
        role, index = epoch.advance()
        roles.append(role)
        ids.append(epoch.segment.candidates[index] if role == CANDIDATE else epoch.lesson[0])
        if role == CANDIDATE:
            inbox.append(index)
            continue
        weights.append(epoch.lesson[1])
        if inbox and epoch.next.features:
            begin, _ = window_rows(order.full, 0, job.window, epoch.segment.index + 1)
            for row in inbox:
                gathered = gathered_features(order, begin + row, epoch.next.units)
                costs.size("features received by a rank, a candidate row", gathered.nbytes)
                costs.time(
                    "pick and record the features of a candidate row",
                    lambda row=row, all=gathered: epoch.record_features(
                        [row], all[epoch.feature_places(group)][None]
                    ),
                )
        if inbox and epoch.next.by == SCORED:
            begin, _ = window_rows(order.full, 0, job.window, epoch.segment.index + 1)
            gathered = gathered_scores(order, begin + np.array(inbox))
            costs.size("collectives received by a rank, a candidate row", gathered[:, 0].nbytes)
            costs.time(
                "record the scores of a collective",
                lambda rows=inbox, all=gathered: epoch.record(rows, all),
            )
        gathers, inbox = gathers + bool(inbox), []
        if epoch.due:
            before = costs.time("checkpoint", lambda: epoch.position.dump())
            costs.size("position in a checkpoint", len(before))
            process, thread = time.process_time(), time.thread_time()
            costs.time("choose and publish a window, the main thread", lambda: epoch.choose(group))
            # Not halfway to the window's first lesson, as in a job: nothing else is measured then
            costs.time("sum what ranks share, the main thread", epoch._thread.share)
            after = epoch.position.dump()
            # All of it, with what the position costs
            both, own = time.process_time() - process, time.thread_time() - thread
            costs.spent("choose and publish a window, a thread beside it", both - own)
            costs.size("position in a checkpoint", len(after))
            costs.time("go on from a checkpoint", lambda text=after: resume(job, order, rank, text))
        made = epoch.take_choices()
        for choice in made:
            costs.time(
                "metrics of a window, the main thread",
                lambda choice=choice: (
                    choice.measured or choice_metrics(choice, order.stream_starts)
                ),
            )
        choices += made
    epoch.close()
    return Run(roles=roles, ids=ids, choices=choices, weights=weights, gathers=gathers)


def resume(job: Job, order: StreamingOrder, rank: int, text: str) -> TaughtEpoch:
    """Resume the epoch from a checkpoint, as another process does."""
    board = Board(
        steps=2 * job.window, batch_size=job.batch_size, ahead=2 * job.window * job.batch_size
    )
    settings = {"rank": rank, "window": job.window, "gap": job.gap, "drop_last": True}
    return TaughtEpoch(order, make_teacher(job), board, **settings, position=Position.load(text))


def read_index(costs: Costs, shards: int) -> None:
    """Measure Streaming's reading of an index.json, and our check, which reads it again."""
    shard = {
        "column_encodings": ["ndarray:uint16"],
        "column_names": ["tokens"],
        "column_sizes": [None],
        "compression": None,
    }
    shard |= {
        "format": "mds",
        "hashes": [],
        "samples": SHARD,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }
    raw = [
        {"basename": f"shard.{number:06}.mds", "bytes": 1 << 24, "hashes": {}}
        for number in range(shards)
    ]
    with tempfile.TemporaryDirectory() as folder:
        index = {"shards": [{**shard, "raw_data": info} for info in raw], "version": 2}
        Path(folder, "index.json").write_text(json.dumps(index))
        stream, world = Stream(local=folder), World(1, 1, 1, 0)
        costs.time("index.json, read by Streaming", lambda: stream.get_shards(world, False))
        costs.time(
            "index.json, read and checked by us", lambda: check_stream(stream, 0, world, False)
        )
        costs.size(
            "index.json, a shard", os.path.getsize(os.path.join(folder, "index.json")) // shards
        )


def gathered_scores(order: StreamingOrder, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return all ranks' scores of these rows, as ``gather_ranks`` does."""
    layout = order.layout
    mine = np.asarray(order.rows[rows], np.int64).reshape(
        len(rows), layout.ranks, layout.batch_size
    )
    return score_of(mine).swapaxes(0, 1)


def gathered_features(order: StreamingOrder, row: int, units: int) -> NDArray[np.float16]:
    """Return all ranks' features of a row, shape (ranks, batch_size, units * d)."""
    layout = order.layout
    ids = np.asarray(order.rows[row], np.int64).reshape(layout.ranks, layout.batch_size)
    pieces = (ids[..., None] * units + np.arange(units)) * 2654435761 % 2**32 >> 20
    return KNOWN[pieces].reshape(*ids.shape, -1)


def places(
    job: Job, order: StreamingOrder, data: SyntheticData
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
    job: Job, order: StreamingOrder, data: SyntheticData, runs: dict[int, Run]
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
    half = SyntheticData(job)
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


def simulate(job: Job) -> dict[str, Any]:
    """Simulate, check and measure a job."""
    data, world = SyntheticData(job), World(job.nodes, job.ranks, 1, 0)
    costs = Costs()
    tracemalloc.start()
    order = costs.time("order of the epoch", lambda: make_order(data, world))
    order_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ranks = np.linspace(0, order.layout.ranks - 1, job.probes).astype(int).tolist()
    runs = {rank: run_rank(job, order, rank, costs) for rank in dict.fromkeys(ranks)}
    read_index(costs, job.shards)
    tracemalloc.start()
    run_rank(job, order, ranks[-1], Costs())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    checked = check(job, order, data, runs)
    checked["wrong"]["on half the nodes"] = check_elastic(job, order)
    first = next(iter(runs.values()))
    ledger = SampleLedger(1000).state_dict()
    sizes = {
        **costs.sizes,
        "collectives sent by a rank, a candidate row": 4 * job.batch_size,
        "order held by a node, a sample": order.rows.itemsize,
        "order while it is made, a sample": round(order_peak / job.samples, 1),
        "ledger of a rank, a sample": sum(
            part.numel() * part.element_size() for part in ledger.values() if hasattr(part, "numel")
        )
        / 1000,
        "peak of a rank beside the order": peak,
        "peak of a rank beside the order, a candidate": round(peak / (job.row * job.window), 1),
    }
    return {
        "ok": not any(checked["wrong"].values()),
        **vars(job),
        "global_batch_size": job.row,
        "lanes": order.layout.node_lanes,
        "canonical_nodes": job.canonical_nodes,
        "samples": job.samples,
        "steps_of_a_rank": {
            "lessons": first.roles.count(LESSON),
            "scoring passes": first.roles.count(CANDIDATE),
            "collectives": first.gathers,
        },
        **checked,
        "cpu_seconds": {name: round(max(values), 4) for name, values in costs.seconds.items()},
        "bytes": sizes,
    }


def main(argv: list[str] | None = None) -> int:
    """Simulate, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1024)
    parser.add_argument("--ranks", type=int, default=8, help="ranks of a node (8)")
    parser.add_argument("--batch-size", type=int, default=8, help="samples of a rank and step (8)")
    parser.add_argument(
        "--shuffle-algo",
        choices=sorted(CANONICAL),
        default="py1e",
        help="also determines the canonical nodes (py1e)",
    )
    parser.add_argument("--window", type=int, default=32, help="rows of a window (32)")
    parser.add_argument(
        "--windows", type=int, default=3, help="windows of the epoch, the last one short (3)"
    )
    parser.add_argument("--gap", type=int, default=8, help="lessons without candidates (8)")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--select", choices=sorted(SELECTORS.known), default="hard")
    parser.add_argument("--probes", type=int, default=2, help="ranks that run the whole epoch (2)")
    parser.add_argument("--pieces", type=float, default=1.0, help="share of a piece (1)")
    parser.add_argument("--balance", action="store_true", help="as one of many ranks")
    parser.add_argument(
        "--shards", type=int, default=10_000, help="shards of the index.json (10,000)"
    )
    result = simulate(Job(**vars(parser.parse_args(argv))))
    for part in ("steps_of_a_rank", "seen", "wrong", "cpu_seconds", "bytes"):
        print(part.replace("_", " "))
        for name, value in result[part].items():
            print(f"  {name:52} {value:>16,}")
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
