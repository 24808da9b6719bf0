"""Hold the loader against what people would use instead, on the same samples.

    python tools/bench_peers.py                 # all peers that are installed, 10 minutes
    python tools/bench_peers.py --quick         # one setting, one round
    python tools/bench_peers.py --out FILE --peers "ours;streaming;memmap"
    python tools/bench_peers.py --images
    python tools/bench_peers.py --s3            # from an S3 server on loopback, into an empty cache

The samples are 2,048 tokens, uint16, in random order, collated to int64 of shape (B, 2048); with
``--images`` JPEG images of 224 x 224, collated to uint8 of shape (B, 3, 224, 224). Each
peer writes them in its own format, as its documentation recommends, and shuffles as it
does that. Every measurement is a process of its own, and peers alternate. Told are the medians over
rounds: batches a second after the first, seconds to the first batch (imports left out), processor
seconds a batch of all processes, and their memory beyond the imports.

Peers that are not installed are left out and named: ``pip install litdata webdataset datasets grain
array_record s3fs``.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from peers import LENGTH, PEERS, RIVALS, Peer
from peers import drawn as drawn_tokens
from peers_images import IMAGES, SIDE
from peers_images import drawn as drawn_images
from peers_s3 import S3, serve, upload

SETTINGS = tuple((workers, batch) for workers in (0, 1, 2) for batch in (16, 64))
QUICK = ((2, 64),)
VERSIONS = (
    "torch", "numpy", "mosaicml-streaming", "litdata", "webdataset", "datasets", "grain",
    "array_record",
)  # fmt: skip


def spent() -> tuple[float, float]:
    """Processor seconds and bytes of this process and its children, with those that ended."""
    own = psutil.Process()
    seconds = memory = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
            seconds += times.user + times.system
            memory += process.memory_full_info().pss
        except psutil.Error:
            continue
    return seconds + own.cpu_times().children_user + own.cpu_times().children_system, memory


def measure_one(
    peer: Peer, folder: Path, workers: int, batch: int, images: bool
) -> dict[str, float]:
    """Read one epoch in this process."""
    import torch

    torch.set_num_threads(1)
    for module in peer.needs:
        importlib.import_module(module)
    import attent_stream.data.dataloader  # noqa: F401  Its imports do not count

    before = spent()[1]
    begun = time.perf_counter()
    batches = iter(peer.read(folder, workers, batch))
    numbers = _numbers(next(batches))
    first = time.perf_counter() - begun
    expected = batch * (3 * SIDE * SIDE if images else LENGTH)
    if numbers != expected:  # pieces are shorter and more
        raise SystemExit(f"expected {expected} numbers a batch, got {numbers}")
    used, begun, count, memory = spent()[0], time.perf_counter(), 0, 0.0
    for one in batches:
        _numbers(one)
        count += 1
        if count == 8:
            memory = spent()[1] - before
    seconds = time.perf_counter() - begun
    return {
        "batches_per_s": count / seconds,
        "first_s": first,
        "cpu_ms": 1e3 * (spent()[0] - used) / count,
        "mb": memory / 1e6,
        "batches": count + 1,
    }


def _numbers(batch: Any) -> int:
    return int(np.prod((batch["input_ids"] if isinstance(batch, dict) else batch).shape))


def write_all(peers: dict[str, Peer], samples: Any, root: Path, s3: bool) -> None:
    """Write the samples once for each format, and put them into the store."""
    for name, peer in peers.items():
        if peer.write is not None:
            folder = root / name.replace(", ", "_")
            folder.mkdir(parents=True)
            peer.write(samples, folder)
            if s3:
                upload(folder, folder.name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, help="8,192; with --images 1,024")
    parser.add_argument("--rounds", type=int, help="3; with --quick 1")
    parser.add_argument("--images", action="store_true", help="JPEG images in place of tokens")
    parser.add_argument("--s3", action="store_true", help="tokens from an S3 server on loopback")
    parser.add_argument("--peers", metavar="NAME;...")
    parser.add_argument("--workers", metavar="N,...", help="only with so many workers")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--one", nargs=4, metavar=("PEER", "FOLDER", "WORKERS", "BATCH"))
    given = parser.parse_args(arguments)
    every = IMAGES if given.images else S3 if given.s3 else PEERS
    if given.one:
        name, folder, workers, batch = given.one
        found = measure_one(every[name], Path(folder), int(workers), int(batch), given.images)
        print("MEASURED " + json.dumps(found))
        return
    names = given.peers.split(";") if given.peers else list(every)
    for unknown in set(names) - set(every):
        raise SystemExit(f"--peers: expected some of {'; '.join(every)}, got {unknown!r}")
    missing = [n for n in names if not all(map(importlib.util.find_spec, every[n].needs))]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", flush=True)
    names = [name for name in names if name not in missing]
    samples = given.samples or (1024 if given.images else 2048 if given.quick else 8192)
    rounds = given.rounds or (1 if given.quick else 3)
    chosen = QUICK if given.quick or given.s3 else SETTINGS
    if given.workers:
        counts = {int(one) for one in given.workers.split(",")}
        chosen = tuple(one for one in chosen if one[0] in counts)
    if not chosen:
        raise SystemExit(f"--workers: none of {given.workers} is measured here")
    stored = {every[name].stored or name for name in names}
    with tempfile.TemporaryDirectory() as scratch, serve() if given.s3 else nullcontext():
        os.environ["PEERS_CACHE"] = scratch
        drawn = drawn_images(samples) if given.images else drawn_tokens(samples)
        writers = {name: every[name] for name in every if name in stored}
        write_all(writers, drawn, Path(scratch), given.s3)
        rows = [
            row
            for setting in chosen
            for row in measured(every, names, Path(scratch), setting, rounds)
        ]
    versions = {name: _version(name) for name in VERSIONS}
    result = {"date": str(date.today()), "samples": samples, "rounds": rounds}
    print(json.dumps(summary(rows)))
    if given.out:
        result |= {
            "images": given.images,
            "s3": given.s3,
            "versions": versions,
            "rows": rows,
            **summary(rows),
        }
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def measured(
    every: dict[str, Peer], names: Sequence[str], root: Path, setting: tuple[int, int], rounds: int
) -> list[dict[str, Any]]:
    """Measure peers in turn, and print a line for each."""
    workers, batch = setting
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            folder = root / (every[name].stored or name).replace(", ", "_")
            one = [name, str(folder), str(workers), str(batch)]
            kind = ["--images"] if every is IMAGES else ["--s3"] if every is S3 else []
            ran = subprocess.run(
                [sys.executable, __file__, *kind, "--one", *one], capture_output=True, text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            told = [line for line in ran.stdout.splitlines() if line.startswith("MEASURED ")]
            if not told:
                raise SystemExit(f"{name} failed: {ran.stderr[-2000:]}")
            found[name].append(json.loads(told[0].removeprefix("MEASURED ")))
    rows = []
    for name in names:
        middle = {key: statistics.median(one[key] for one in found[name]) for key in found[name][0]}
        rows.append({"peer": name, "workers": workers, "batch": batch, **middle})
        print(
            f"{workers} workers, batch {batch:2}: {name:26}",
            f"{middle['batches_per_s']:7.1f} batches/s, {middle['cpu_ms']:6.2f} ms of processor,",
            f"first after {middle['first_s']:.2f} s, {middle['mb']:6.0f} MB",
            flush=True,
        )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ours over the best peer and over the memory map, the least of all settings."""
    found: dict[str, list[float]] = {"ours_over_best_peer": [], "ours_over_memmap": []}
    for setting in sorted({(row["workers"], row["batch"]) for row in rows}):
        speed = {
            row["peer"]: row["batches_per_s"]
            for row in rows
            if (row["workers"], row["batch"]) == setting
        }
        if "ours" not in speed:
            continue
        rivals = [speed[name] for name in RIVALS if name in speed]
        if rivals:
            found["ours_over_best_peer"].append(speed["ours"] / max(rivals))
        if "memmap" in speed:
            found["ours_over_memmap"].append(speed["ours"] / speed["memmap"])
    return {name: round(min(values), 3) for name, values in found.items() if values}


if __name__ == "__main__":
    main()
