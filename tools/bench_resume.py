"""Measure the time to resume to the first batch, for stock Streaming and for a taught run.

Both build the dataset, load the state at the same position of the epoch, and read a batch with one
worker, alternating in one process. The last line is a JSON object: ``stock_s`` and ``taught_s``
(medians in seconds), ``resume_ratio`` (taught / stock) and ``samples``.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.schedule import Interval, Phases, ShareSchedule
from attent_stream.base.span import Clock
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.teacher_settings import TeacherSettings

BATCH, WINDOW = 16, 32


def write(folder: Path, samples: int) -> None:
    """Write a corpus of 16-token samples."""
    tokens = np.arange(16, dtype=np.uint16)
    with MDSWriter(
        out=str(folder), columns={"tokens": "ndarray:uint16"}, size_limit=1 << 22
    ) as writer:
        for _ in range(samples):
            writer.write({"tokens": tokens})


def teacher() -> Teacher:
    """Build a teacher that keeps half."""
    settings = TeacherSettings(
        keep=ShareSchedule(start=0.5, end=0.5),
        select="hard",
        temperature=1.0,
        interval=Interval(),
        phases=Phases(),
        seed=1,
    )
    return Teacher(
        settings,
        clock=lambda ahead, epoch, share: Clock(ep=epoch + share, ba=ahead, sp=0, tok=0, dur=0),
    )


def collate(samples: list) -> np.ndarray:
    """Stack the tokens of a batch."""
    return np.stack([sample["tokens"] for sample in samples])


def taught_loader(data: dict) -> TeachingDataLoader:
    """Build a loader with a teacher."""
    made = TeachingDataset(**data, window=WINDOW)
    loader = TeachingDataLoader(made, batch_size=BATCH, num_workers=1, collate_fn=collate)
    loader.attach(teacher())
    return loader


def taught_state(data: dict, rows: int) -> dict:
    """Return the state of a run in the middle of a window, after ``rows`` rows of the order."""
    loader = taught_loader(data)
    loader.dataset.load_state_dict(
        {**loader.dataset.state_dict(rows * BATCH, True), "epoch": 0, "attent": ""}
    )

    for step, _ in enumerate(loader):
        loader.teach(lambda batch: torch.from_numpy(batch[:, 0].astype(np.float32)))
        if step == WINDOW + 5:
            return loader.dataset.state_dict(1, True)
    raise AssertionError("the corpus is too small")


def first_batch(loader, state: dict) -> None:
    """Load a state and read a batch."""
    loader.dataset.load_state_dict(state)
    batches = iter(loader)
    next(batches)
    del batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), given.samples)
        data = {"local": folder, "batch_size": BATCH, "shuffle": True, "num_canonical_nodes": 1}
        rows = given.samples // BATCH // 2
        state = taught_state(data, rows)
        times: dict[str, list[float]] = {"stock": [], "taught": []}
        for _ in range(given.repeats):
            begin = time.perf_counter()
            stock = StreamingDataset(**data)
            loader = StreamingDataLoader(stock, batch_size=BATCH, num_workers=1, collate_fn=collate)
            first_batch(
                loader,
                {**stock.state_dict(rows * BATCH, True), "epoch": 0, "num_canonical_nodes": 1},
            )
            times["stock"].append(time.perf_counter() - begin)
            del loader, stock
            begin = time.perf_counter()
            loader = taught_loader(data)
            first_batch(loader, state)
            times["taught"].append(time.perf_counter() - begin)
            del loader
    stock_s, taught_s = (statistics.median(times[name]) for name in ("stock", "taught"))
    print(
        json.dumps(
            {
                "stock_s": round(stock_s, 3),
                "taught_s": round(taught_s, 3),
                "resume_ratio": round(taught_s / stock_s, 3),
                "samples": given.samples,
            }
        )
    )


if __name__ == "__main__":
    main()
