"""Hold the loader against what people would use instead, on the same samples.

    python tools/bench_peers.py                 # all peers that are installed, 10 minutes
    python tools/bench_peers.py --quick         # one setting, one round
    python tools/bench_peers.py --out FILE --peers "ours;streaming;memmap"

The samples are 2,048 tokens, uint16, in random order, collated to int64 of shape (B, 2048). Each
peer writes them in its own format, as its documentation recommends for text, and shuffles as it
does that. Every measurement is a process of its own, and peers alternate. Told are the medians over
rounds: batches a second after the first, seconds to the first batch (imports left out), processor
seconds a batch of all processes, and their memory beyond the imports.

Peers that are not installed are left out and named: ``pip install litdata webdataset datasets grain
array_record``.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

LENGTH = 2048
SETTINGS = tuple((workers, batch) for workers in (0, 1, 2) for batch in (16, 64))
QUICK = ((2, 64),)


class Peer(NamedTuple):
    """A way to store and read samples.

    Args:
        needs: Modules that it needs.
        write: Writes an array (N, LENGTH), uint16, to a folder.
        read: Opens a folder with so many workers and samples a batch; batches of int64.
        stored: Name of the peer whose files it reads; its own if empty.
    """

    needs: tuple[str, ...]
    write: Callable[[np.ndarray, Path], None] | None
    read: Callable[[Path, int, int], Iterable[Any]]
    stored: str = ""


def collate(samples: list) -> Any:
    """Stack rows of tokens to int64 of shape (B, LENGTH)."""
    import torch

    return torch.from_numpy(np.stack(samples).astype(np.int64))


def collate_columns(samples: list) -> Any:
    """The same for samples as dicts."""
    return collate([sample["tokens"] for sample in samples])


def named(samples: list) -> Any:
    """The same as a batch of a language model, which AtteNT can arrange."""
    return {"input_ids": collate_columns(samples)}


named.packed = True


def _loader(data: Any, workers: int, batch: int, **more: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(data, batch_size=batch, num_workers=workers, drop_last=True, **more)


# A bare memory map: the limit.


class Mapped:
    """Rows of a memory-mapped array."""

    def __init__(self, path: str) -> None:
        self._path, self._rows = path, np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._rows[index]


def write_memmap(tokens: np.ndarray, folder: Path) -> None:
    np.save(folder / "tokens.npy", tokens)


def read_memmap(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    data = Mapped(str(folder / "tokens.npy"))
    return _loader(data, workers, batch, shuffle=True, collate_fn=collate)


# MDS: mosaicml-streaming and ours.


def write_mds(tokens: np.ndarray, folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"tokens": f"ndarray:uint16:{LENGTH}"}
    with MDSWriter(out=str(folder), columns=columns, size_limit="64mb") as out:
        for row in tokens:
            out.write({"tokens": row})


def read_streaming(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from streaming import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch)
    return StreamingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_columns
    )


def read_ours(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from attent_stream import TeachingDataLoader, TeachingDataset

    data = TeachingDataset(local=str(folder), shuffle=True, batch_size=batch)
    return TeachingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_columns
    )


def _taught(folder: Path, workers: int, batch: int, **settings: Any) -> Iterable[Any]:
    import torch

    from attent_stream import TeachingDataLoader, TeachingDataset, TeachingLoop

    data = TeachingDataset(local=str(folder), shuffle=True, batch_size=batch, window=8, gap=2)
    loader = TeachingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=named
    )

    def score(batch: dict) -> torch.Tensor:
        return torch.rand(len(batch["input_ids"]))

    return TeachingLoop(loader, steps=len(data) // batch // 2, score=score, **settings)


def read_arranged(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    pieces = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
    return _taught(folder, workers, batch, keep=1, arrange={"pieces": pieces, "balance": "tokens"})


def read_chosen(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    return _taught(folder, workers, batch, keep=0.5, select="hard")


# litdata, as its documentation has it for the pretraining of language models.


def _row(row: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(row)


def write_litdata(tokens: np.ndarray, folder: Path) -> None:
    from litdata import TokensLoader, optimize

    optimize(
        fn=_row,
        inputs=list(tokens),
        output_dir=str(folder),
        chunk_bytes="64MB",
        item_loader=TokensLoader(block_size=LENGTH),
        num_workers=1,
    )


def read_litdata(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    data = StreamingDataset(
        str(folder), item_loader=TokensLoader(block_size=LENGTH), shuffle=True, drop_last=True
    )
    return StreamingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_tensors
    )


def collate_tensors(samples: list) -> Any:
    import torch

    return torch.stack(samples).long()


# webdataset: tar files of .npy


def write_webdataset(tokens: np.ndarray, folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=512, verbose=0) as out:
        for number, row in enumerate(tokens):
            out.write({"__key__": f"{number:08}", "npy": row})


def read_webdataset(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    data = webdataset.WebDataset(urls, shardshuffle=100, nodesplitter=webdataset.split_by_node)
    data = data.shuffle(1000).decode().to_tuple("npy").map(_first)
    return webdataset.WebLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate
    )


def _first(sample: tuple) -> Any:
    return sample[0]


# Hugging Face datasets, mapped and as a stream


def write_datasets(tokens: np.ndarray, folder: Path) -> None:
    from datasets import Dataset, Features, List, Value

    features = Features({"tokens": List(Value("uint16"), length=LENGTH)})
    Dataset.from_dict({"tokens": tokens}, features=features).save_to_disk(str(folder))


def read_datasets(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_from_disk

    data = load_from_disk(str(folder)).with_format("numpy")
    return _loader(data, workers, batch, shuffle=True, collate_fn=collate_columns)


def read_datasets_stream(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_from_disk

    data = load_from_disk(str(folder)).to_iterable_dataset(num_shards=16)
    data = data.shuffle(buffer_size=1000, seed=1).with_format("numpy")
    return _loader(data, workers, batch, collate_fn=collate_columns)


# grain over ArrayRecord


def write_grain(tokens: np.ndarray, folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    out = ArrayRecordWriter(str(folder / "tokens.array_record"), "group_size:1")
    for row in tokens:
        out.write(row.tobytes())
    out.close()


def read_grain(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    import grain.python as grain

    source = grain.ArrayRecordDataSource([str(folder / "tokens.array_record")])
    data = grain.MapDataset.source(source).shuffle(seed=1).map(_tokens)
    data = data.batch(batch, drop_remainder=True).map(_wide).to_iter_dataset()
    if workers:
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return data


def _tokens(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint16)


def _wide(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.int64)


PEERS = {
    "memmap": Peer((), write_memmap, read_memmap),
    "ours": Peer((), write_mds, read_ours),
    "ours, pieces and balance": Peer((), None, read_arranged, "ours"),
    "ours, keep 0.5": Peer((), None, read_chosen, "ours"),
    "streaming": Peer((), None, read_streaming, "ours"),
    "litdata": Peer(("litdata",), write_litdata, read_litdata),
    "webdataset": Peer(("webdataset",), write_webdataset, read_webdataset),
    "datasets": Peer(("datasets",), write_datasets, read_datasets),
    "datasets, streamed": Peer(("datasets",), None, read_datasets_stream, "datasets"),
    "grain": Peer(("grain", "array_record"), write_grain, read_grain),
}
OWN = ("ours", "ours, pieces and balance", "ours, keep 0.5")
RIVALS = ("streaming", "litdata", "webdataset", "datasets", "datasets, streamed", "grain")


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


def measure_one(name: str, folder: Path, workers: int, batch: int) -> dict[str, float]:
    """Read one epoch in this process."""
    import torch

    torch.set_num_threads(1)
    peer = PEERS[name]
    for module in peer.needs:
        importlib.import_module(module)
    import attent_stream.data.dataloader  # noqa: F401  Its imports do not count

    before = spent()[1]
    begun = time.perf_counter()
    batches = iter(peer.read(folder, workers, batch))
    numbers = _numbers(next(batches))
    first = time.perf_counter() - begun
    if numbers != batch * LENGTH:  # pieces are shorter and more
        raise SystemExit(f"{name}: expected {batch * LENGTH} tokens a batch, got {numbers}")
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


def write_all(names: Sequence[str], samples: int, root: Path) -> None:
    """Write the samples once for each format."""
    tokens = np.random.default_rng(1).integers(0, 50_000, (samples, LENGTH), dtype=np.uint16)
    for name in {PEERS[name].stored or name for name in names}:
        folder = root / name
        folder.mkdir(parents=True)
        PEERS[name].write(tokens, folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=";".join(PEERS), metavar="NAME;...")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--one", nargs=4, metavar=("PEER", "FOLDER", "WORKERS", "BATCH"))
    given = parser.parse_args(arguments)
    if given.one:
        name, folder, workers, batch = given.one
        print("MEASURED " + json.dumps(measure_one(name, Path(folder), int(workers), int(batch))))
        return
    names = given.peers.split(";")
    for unknown in set(names) - set(PEERS):
        raise SystemExit(f"--peers: expected some of {'; '.join(PEERS)}, got {unknown!r}")
    missing = [n for n in names if not all(map(importlib.util.find_spec, PEERS[n].needs))]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", flush=True)
    names = [name for name in names if name not in missing]
    samples = 2048 if given.quick else given.samples
    rounds = 1 if given.quick else given.rounds
    with tempfile.TemporaryDirectory() as scratch:
        write_all(names, samples, Path(scratch))
        rows = [
            row
            for workers, batch in (QUICK if given.quick else SETTINGS)
            for row in measured(names, Path(scratch), workers, batch, rounds)
        ]
    result = {"date": str(date.today()), "samples": samples, "rounds": rounds, "rows": rows}
    print(json.dumps(summary(rows)))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(
    names: Sequence[str], root: Path, workers: int, batch: int, rounds: int
) -> list[dict[str, Any]]:
    """Measure peers in turn, and print a line for each."""
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            folder = root / (PEERS[name].stored or name)
            one = [name, str(folder), str(workers), str(batch)]
            ran = subprocess.run(
                [sys.executable, __file__, "--one", *one], capture_output=True, text=True,
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
