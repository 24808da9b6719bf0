"""Measure the cost of an epoch's start and of a resume, with Streaming's order and the lazy one.

    python tools/bench_start.py [--quick]

Each measurement is a process of its own; memory is its peak above the memory after imports.
``start`` is the time from shard sizes to the ids of the first window (32 batches of 8 ranks with 8
samples), and ``middle`` to those of a window in the middle of the epoch, of 1e9 samples if nothing
else is said. Shards have 4,096 samples. ``stock_ratio_1e8`` is the
CPU time of stock relative to lazy. ``batches_ratio`` compares batches/s of two loaders of the same
files, alternating in one process; other processes disturb ``batches_cpu_ratio`` less. ``--quick``
compares at 1e7 samples instead of 1e8. The last line is a JSON object.
"""

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from streaming import MDSWriter
from streaming.base.world import World
from synthetic import SyntheticDataset

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.order.lazy_order import lazy_order
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import generate_rows

WINDOW, WORLD = 32, (1, 8)


def memory_mb(field: str) -> float:
    """Return a field of this process's status in MB, such as VmRSS or VmHWM (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(kind: str, samples: int, place: float) -> dict[str, float]:
    """Measure seconds and MB from shard sizes to a window's ids."""
    data, world = SyntheticDataset(samples), World(*WORLD, 1, 0)
    before, wall, cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    if kind == "stock":
        rows = generate_rows(data, world, 0)
        ids = rows[int(place * len(rows)) :][:WINDOW]
    else:
        order = lazy_order(data, *layouts(data, world), 0)
        begin = int(place * order.full)
        ids = order.of_rank(order.window(begin, begin + WINDOW), 0)
    assert len(ids) == WINDOW and ids.min() >= 0 and ids.max() < samples
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "mb": max(0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before),
    }


def measured(kind: str, samples: int, place: float = 0.0) -> dict[str, float]:
    """Run ``measure`` in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, str(samples), str(place)]
    result = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    told = "  ".join(f"{name} {value:10.3f}" for name, value in result.items())
    print(f"{kind:6} {samples:14,} samples  at {place:.1f}  {told}", flush=True)
    return result


def collate(samples: list) -> np.ndarray:
    """Stack the tokens of a batch."""
    return np.stack([sample["tokens"] for sample in samples])


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its ended workers."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def batches_a_second(samples: int, rounds: int) -> tuple[float, float]:
    """Return batches per second and per CPU second of the lazy order, relative to Streaming's."""
    with tempfile.TemporaryDirectory() as folder:
        with MDSWriter(
            out=folder, columns={"tokens": "ndarray:uint16"}, size_limit=1 << 20
        ) as writer:
            for _ in range(samples):
                writer.write({"tokens": np.zeros(128, np.uint16)})
        data = {"local": folder, "batch_size": 16, "shuffle": True}
        loaders = {
            order: TeachingDataLoader(
                TeachingDataset(**data, order=order),
                batch_size=16,
                num_workers=1,
                collate_fn=collate,
            )
            for order in ("lazy", "streaming")
        }
        ratios = []
        for turn in range(rounds):
            took = {}
            for order in sorted(loaders, reverse=turn % 2 == 0):
                begin = time.perf_counter(), cpu_seconds()
                for _ in loaders[order]:
                    pass
                took[order] = time.perf_counter() - begin[0], cpu_seconds() - begin[1]
            ratios.append(
                [
                    streaming / lazy
                    for lazy, streaming in zip(took["lazy"], took["streaming"], strict=True)
                ]
            )
            print(
                "batches/s, lazy over streaming: {:.3f}; a CPU second: {:.3f}".format(*ratios[-1]),
                flush=True,
            )
        wall, cpu = (statistics.median(part) for part in zip(*ratios, strict=True))
        return wall, cpu


def window_us(samples: int) -> float:
    """Return the lazy order's CPU microseconds per sample id, over windows of a whole epoch."""
    data, world = SyntheticDataset(samples), World(*WORLD, 1, 0)
    order = lazy_order(data, *layouts(data, world), 0)
    begin, windows = time.process_time(), 50
    for place in np.linspace(0, order.full - WINDOW, windows).astype(int).tolist():
        order.window(place, place + WINDOW)
    return (time.process_time() - begin) * 1e6 / (windows * WINDOW * order.layout.row_size)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="stock at 1e7 samples, fewer rounds")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, samples, place = options.measure
        print(json.dumps(measure(kind, int(samples), float(place))))
        return
    logging.getLogger("attent_stream").setLevel(logging.ERROR)
    size, name = (10**7, "1e7") if options.quick else (10**8, "1e8")
    lazy = [measured("lazy", size) for _ in range(3)]
    stock = measured("stock", size)
    lazy += [measured("lazy", size) for _ in range(2)]
    cpu, mb = (statistics.median(run[part] for run in lazy) for part in ("cpu_s", "mb"))
    starts, middles = zip(
        *((measured("lazy", 10**9), measured("lazy", 10**9, 0.5)) for _ in range(3)), strict=True
    )
    many = [measured("lazy", 10**11, place) for place in (0.0, 0.5) for _ in range(3)]
    batches, batches_cpu = batches_a_second(
        20_000 if options.quick else 30_000, 5 if options.quick else 21
    )
    result = {
        "start_s": round(statistics.median(run["wall_s"] for run in starts), 3),
        "start_mb": round(max(run["mb"] for run in starts), 1),
        "middle_s": round(statistics.median(run["wall_s"] for run in middles), 3),
        "middle_mb": round(max(run["mb"] for run in middles), 1),
        f"stock_ratio_{name}": round(stock["cpu_s"] / cpu, 1),
        f"stock_mb_ratio_{name}": round(stock["mb"] / max(mb, 0.1), 1),
        f"stock_{name}_cpu_s": round(stock["cpu_s"], 2),
        f"stock_{name}_mb": round(stock["mb"], 1),
        f"lazy_{name}_cpu_s": round(cpu, 4),
        f"lazy_{name}_mb": round(mb, 1),
        "start_1e11_s": round(statistics.median(run["wall_s"] for run in many[:3]), 3),
        "middle_1e11_s": round(statistics.median(run["wall_s"] for run in many[3:]), 3),
        "start_1e11_mb": round(max(run["mb"] for run in many), 1),
        "lazy_us_an_id": round(window_us(10**9), 3),
        "lazy_us_an_id_1e11": round(window_us(10**11), 3),
        "batches_ratio": round(batches, 3),
        "batches_cpu_ratio": round(batches_cpu, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
