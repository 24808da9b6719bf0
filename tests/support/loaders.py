"""Settings of a small data set of ids, and what to score it by."""

import torch


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


def difficulty_of(batch: dict) -> torch.Tensor:
    """The score that ``write_ids`` writes."""
    return batch["difficulty"]
