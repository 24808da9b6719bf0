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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scale_checks import Run, check, check_elastic
from scale_job import (
    CANONICAL,
    SHARD,
    Job,
    OneOfMany,
    gathered_features,
    gathered_scores,
    make_order,
    make_teacher,
)
from streaming import Stream
from streaming.base.world import World

from attent_stream.memory.ledger import SampleLedger
from attent_stream.order.streaming_order import StreamingOrder
from attent_stream.store.index_check import check_stream
from attent_stream.teach.board import Board
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.position import Position
from attent_stream.window.decision import SCORED
from attent_stream.window.layout import CANDIDATE, LESSON, window_rows
from attent_stream.window.metrics import choice_metrics
from attent_stream.window.selectors import SELECTORS


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
            last = len(epoch.segment.lessons)
            costs.time(
                "sum what ranks share, the main thread", lambda end=last: epoch.chooser.share(end)
            )
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


def simulate(job: Job) -> dict[str, Any]:
    """Simulate, check and measure a job."""
    data, world = job.data(), World(job.nodes, job.ranks, 1, 0)
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
