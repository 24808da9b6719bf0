"""Ways to store and read tokens that people use: ours, its peers, and a memory map as the limit.

Each peer writes the samples in its own format, as its documentation recommends for text, and
shuffles as it does that.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LENGTH = 2048


class Peer(NamedTuple):
    """A way to store and read samples.

    Args:
        needs: Modules that it needs.
        write: Writes samples to a folder: an array (N, LENGTH), uint16, or JPEG images.
        read: Opens a folder with so many workers and samples a batch.
        stored: Name of the peer whose files it reads; its own if empty.
    """

    needs: tuple[str, ...]
    write: Callable[[Any, Path], None] | None
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


def drawn(count: int) -> np.ndarray:
    """Samples, uint16 of shape (count, LENGTH)."""
    return np.random.default_rng(1).integers(0, 50_000, (count, LENGTH), dtype=np.uint16)


def loader_of(data: Any, workers: int, batch: int, **more: Any) -> Any:
    """torch's DataLoader."""
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
    return loader_of(data, workers, batch, shuffle=True, collate_fn=collate)


# MDS: mosaicml-streaming and ours.


def write_mds(tokens: np.ndarray, folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"tokens": f"ndarray:uint16:{LENGTH}"}
    with MDSWriter(out=str(folder), columns=columns, size_limit="64mb") as out:
        for row in tokens:
            out.write({"tokens": row})


def read_streaming(
    folder: Path, workers: int, batch: int, collate_fn: Any = collate_columns, **where: Any
) -> Iterable[Any]:
    from streaming import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(**(where or {"local": str(folder)}), shuffle=True, batch_size=batch)
    return StreamingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_fn
    )


def read_ours(
    folder: Path, workers: int, batch: int, collate_fn: Any = collate_columns, **where: Any
) -> Iterable[Any]:
    from attent_stream import TeachingDataLoader, TeachingDataset

    data = TeachingDataset(**(where or {"local": str(folder)}), shuffle=True, batch_size=batch)
    return TeachingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_fn
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
    return read_tars(sorted(map(str, folder.glob("*.tar"))), workers, batch)


def read_tars(urls: list[str], workers: int, batch: int) -> Iterable[Any]:
    """Tokens of tar files, shuffled."""
    data = web_dataset(urls).decode().to_tuple("npy").map(_first)
    return web_loader(data, workers, batch, collate)


def web_dataset(urls: list[str]) -> Any:
    """A WebDataset, shuffled."""
    import webdataset

    data = webdataset.WebDataset(urls, shardshuffle=100, nodesplitter=webdataset.split_by_node)
    return data.shuffle(1000)


def web_loader(data: Any, workers: int, batch: int, collate_fn: Any) -> Iterable[Any]:
    """A WebDataset's batches."""
    import webdataset

    return webdataset.WebLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_fn
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
    return loader_of(data, workers, batch, shuffle=True, collate_fn=collate_columns)


def read_datasets_stream(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_from_disk

    data = load_from_disk(str(folder)).to_iterable_dataset(num_shards=16)
    data = data.shuffle(buffer_size=1000, seed=1).with_format("numpy")
    return loader_of(data, workers, batch, collate_fn=collate_columns)


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
RIVALS = ("streaming", "litdata", "webdataset", "datasets", "datasets, streamed", "grain")
