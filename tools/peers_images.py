"""Ways to store and read JPEG images that people use: ours, its peers, and a memory map.

All decode with the same function, in a worker if there is one. Batches are uint8 of shape
(B, 3, SIDE, SIDE).
"""

import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, loader_of, read_ours, read_streaming, web_dataset, web_loader
from PIL import Image

SIDE = 224


def drawn(count: int) -> list[bytes]:
    """JPEG images of about 10 kB."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        image = np.clip(image + rng.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


def pixels(data: bytes) -> np.ndarray:
    """Decode to uint8 of shape (3, SIDE, SIDE)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def collate(samples: list[bytes]) -> Any:
    """Decode a batch."""
    import torch

    return torch.from_numpy(np.stack([pixels(data) for data in samples]))


def collate_columns(samples: list[dict]) -> Any:
    """The same for samples as dicts."""
    return collate([sample["image"] for sample in samples])


def collate_tuples(samples: list[tuple]) -> Any:
    """The same for samples as tuples."""
    return collate([sample[0] for sample in samples])


# A bare memory map: the limit.


class Mapped:
    """Images in a memory-mapped file."""

    def __init__(self, folder: str) -> None:
        self._data = np.load(f"{folder}/images.npy", mmap_mode="r")
        self._ends = np.load(f"{folder}/ends.npy")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._data[self._ends[index] : self._ends[index + 1]].tobytes()


def write_memmap(images: list[bytes], folder: Path) -> None:
    np.save(folder / "images.npy", np.frombuffer(b"".join(images), np.uint8))
    np.save(folder / "ends.npy", np.cumsum([0, *map(len, images)]))


def read_memmap(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    return loader_of(Mapped(str(folder)), workers, batch, shuffle=True, collate_fn=collate)


# MDS, which mosaicml-streaming and ours read


def write_mds(images: list[bytes], folder: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "bytes"}, size_limit="16mb") as out:
        for image in images:
            out.write({"image": image})


# litdata


def _same(image: bytes) -> dict[str, bytes]:
    return {"image": image}


def write_litdata(images: list[bytes], folder: Path) -> None:
    from litdata import optimize

    optimize(
        fn=_same, inputs=list(images), output_dir=str(folder), chunk_bytes="16MB", num_workers=1
    )


def read_litdata(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(str(folder), shuffle=True, drop_last=True)
    return StreamingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_columns
    )


# webdataset: tar files of .jpg


def write_webdataset(images: list[bytes], folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=256, verbose=0) as out:
        for number, image in enumerate(images):
            out.write({"__key__": f"{number:08}", "jpg": image})


def read_webdataset(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    data = web_dataset(sorted(map(str, folder.glob("*.tar")))).to_tuple("jpg")
    return web_loader(data, workers, batch, collate_tuples)


# Hugging Face datasets, mapped and as a stream


def write_datasets(images: list[bytes], folder: Path) -> None:
    from datasets import Dataset, Features, Value

    features = Features({"image": Value("binary")})
    Dataset.from_dict({"image": list(images)}, features=features).save_to_disk(str(folder))


def read_datasets(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_from_disk

    data = load_from_disk(str(folder))
    return loader_of(data, workers, batch, shuffle=True, collate_fn=collate_columns)


def read_datasets_stream(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_from_disk

    data = load_from_disk(str(folder)).to_iterable_dataset(num_shards=16)
    data = data.shuffle(buffer_size=1000, seed=1)
    return loader_of(data, workers, batch, collate_fn=collate_columns)


# grain over ArrayRecord


def write_grain(images: list[bytes], folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    out = ArrayRecordWriter(str(folder / "images.array_record"), "group_size:1")
    for image in images:
        out.write(image)
    out.close()


def read_grain(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    import grain.python as grain

    source = grain.ArrayRecordDataSource([str(folder / "images.array_record")])
    data = grain.MapDataset.source(source).shuffle(seed=1).map(pixels)
    data = data.batch(batch, drop_remainder=True).to_iter_dataset()
    if workers:
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return data


IMAGES = {
    "memmap": Peer((), write_memmap, read_memmap),
    "ours": Peer((), write_mds, partial(read_ours, collate_fn=collate_columns)),
    "streaming": Peer((), None, partial(read_streaming, collate_fn=collate_columns), "ours"),
    "litdata": Peer(("litdata",), write_litdata, read_litdata),
    "webdataset": Peer(("webdataset",), write_webdataset, read_webdataset),
    "datasets": Peer(("datasets",), write_datasets, read_datasets),
    "datasets, streamed": Peer(("datasets",), None, read_datasets_stream, "datasets"),
    "grain": Peer(("grain", "array_record"), write_grain, read_grain),
}
