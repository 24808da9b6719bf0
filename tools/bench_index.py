"""Measure CPU seconds and MB to set up a dataset of many shards, by Streaming and by us.

    python tools/bench_index.py [--shards 61000]

The index.json is synthetic, without shards. Each measurement is a process of its own; memory is its
peak above the memory after imports. Of ours the first process makes the table of the index. Then
two ranks of the node start together and map it: its leader, which also looks at the cache, and
another. The last line is a JSON object.
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

from ports import free_port

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
    folder.mkdir(parents=True)
    with open(folder / "index.json", "w") as file:
        file.write('{"shards": [')
        for number in range(shards):
            raw = {"basename": f"shard.{number:06}.mds", "bytes": 1 << 24, "hashes": {}}
            file.write((", " if number else "") + json.dumps({**shard, "raw_data": raw}))
        file.write('], "version": 2}')


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


def run(kind: str, folder: str, ranks: int) -> list[dict[str, float]]:
    """Measure the ranks of a node, which start together."""
    port = str(free_port())
    started = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        env = {**os.environ, **{name: str(value) for name, value in place.items()}}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TMPDIR": folder}
        command = [sys.executable, __file__, "--measure", kind, folder]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{kind} failed")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


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
                found = {"first": run(kind, folder, 1)[0]}
                if kind == "ours":
                    found |= zip(("leader", "other"), run(kind, folder, 2), strict=True)
                for process, measured in found.items():
                    result[f"{kind} {shards} {process}"] = measured
                    print(kind, shards, process, measured, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
