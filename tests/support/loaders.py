"""Small data sets of ids: their settings, what to score them by, and their lessons."""

from pathlib import Path

import torch
from corpora import write_ids

from attent_stream import TeachingDataLoader


def data_of(folder: str, **more) -> dict:
    """Arguments of a TeachingDataset."""
    return {
        "local": folder,
        "batch_size": 4,
        "window": 4,
        "gap": 2,
        "num_canonical_nodes": 1,
        "shuffle": True,
    } | more


def ids_data(folder: Path, samples: int, **more) -> dict:
    """Arguments of a TeachingDataset or StreamingDataset of ids, written below a folder."""
    local = write_ids(folder / "data", samples)
    return {"local": local, "batch_size": 4, "num_canonical_nodes": 1} | more


def difficulty_of(batch: dict) -> torch.Tensor:
    """The score that ``write_ids`` writes."""
    return batch["difficulty"]


def lessons_of(loader: TeachingDataLoader, epochs: int = 2) -> list[dict]:
    """The batches of epochs, each with its epoch's number."""
    lessons = []
    for _ in range(epochs):
        for batch in loader:
            loader.teach(difficulty_of)
            if loader.teacher:
                loader.teacher.clock.batches += 1
            lessons.append(batch | {"epoch": loader.dataset.next_epoch - 1})
    return lessons
