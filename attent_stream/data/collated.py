"""Batches that the training process reads itself, beside the loader's workers."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from streaming import StreamingDataset

from attent_stream.base.batch_seed import random_numbers_kept, seed_batch


def collated(
    dataset: StreamingDataset, collate: Callable[[list], Any], ids: Iterable[int], epoch: int = 0
) -> Any:
    """Read and collate some samples, seeded as in a worker. Random states are kept.

    Args:
        dataset: The samples' data set.
        collate: Collates samples.
        ids: Their sample ids.
        epoch: Number of the epoch, which seeds what a collate function draws.
    """
    numbers = np.array(list(ids), np.int64)
    with random_numbers_kept():
        seed_batch(dataset.shuffle_seed, epoch, numbers)
        return collate([dataset[number] for number in numbers.tolist()])
