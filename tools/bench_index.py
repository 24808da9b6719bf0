"""Measure CPU seconds and MB to set up a dataset of many shards, by Streaming and by us.

    python tools/bench_index.py [--shards 61000]

The index.json is synthetic, without shards. Each measurement is a process of its own; memory is its
peak above the memory after imports. The last line is a JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD = 4096


def write_index(folder: Path, shards: int) -> None:
    """Write an index.json like MDSWriter's."""
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
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(
        json.dumps({"shards": [{**shard, "raw_data": info} for info in raw], "version": 2})
    )


def measure(kind: str, folder: str) -> dict[str, float]:
    """Build a dataset and measure it."""
    from streaming import StreamingDataset

    from attent_stream import TeachingDataset

    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    begin = time.process_time()
    made = StreamingDataset if kind == "stock" else TeachingDataset
    dataset = made(local=f"{folder}/local", remote=f"{folder}/remote", batch_size=8, shuffle=True)
    seconds = time.process_time() - begin
    assert dataset.num_samples == SHARD * dataset.num_shards
    return {
        "cpu_s": round(seconds, 2),
        "mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - held, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, nargs="+", default=[61_000])
    parser.add_argument("--kinds", nargs="+", choices=["stock", "ours"], default=["stock", "ours"])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    result = {}
    for shards in options.shards:
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                write_index(Path(folder, "remote"), shards)
                write_index(Path(folder, "local"), shards)
                command = [sys.executable, __file__, "--measure", kind, folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            result[f"{kind} {shards}"] = json.loads(done.stdout.splitlines()[-1])
            print(kind, shards, result[f"{kind} {shards}"], flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
