"""The samples that a loader worker reads in an epoch without a teacher."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset

from attent_stream.base.batch_seed import seed_batch
from attent_stream.order.lazy_order import lazy_order, lazy_steps
from attent_stream.order.open_order import layouts
from attent_stream.order.order import LAZY
from attent_stream.store.shards import ShardFetcher

# The ids that the fetcher prepares, and the batches to read of them
_Stretch = tuple[NDArray[np.int64], Iterable[NDArray[np.int64]]]


def plain_samples(
    dataset: StreamingDataset, epoch: int, sample_in_epoch: int, *, seeded: bool
) -> Iterator[Any]:
    """Read a worker's samples as Streaming partitions them, or from a lazy order.

    Args:
        dataset: A TeachingDataset whose worker worlds are set.
        epoch: Number of the epoch.
        sample_in_epoch: Samples of the epoch to skip, of all ranks.
        seeded: Whether to seed the global generators for each batch.
    """
    stretches = _lazy if dataset.order == LAZY else _streaming
    # Streaming's ``__getitem__`` also takes slices and lists, for a microsecond a sample.
    own = type(dataset).__getitem__ is not StreamingDataset.__getitem__
    read = dataset.__getitem__ if own else dataset.get_item
    fetcher = ShardFetcher(dataset, dataset.predownload)
    try:
        for expected, batches in stretches(dataset, epoch, sample_in_epoch):
            fetcher.expect(expected)
            for batch in batches:
                fetcher.advance(len(batch))
                if seeded:
                    seed_batch(dataset.shuffle_seed, epoch, batch)
                yield from map(read, batch.tolist())
    finally:
        fetcher.close()


def _streaming(dataset: StreamingDataset, epoch: int, skip: int) -> Iterator[_Stretch]:
    ids = dataset._get_work(epoch, skip)
    ids = ids[ids != -1]
    size = dataset.batch_size
    yield ids, (ids[begin : begin + size] for begin in range(0, len(ids), size))


def _lazy(dataset: StreamingDataset, epoch: int, skip: int) -> Iterator[_Stretch]:
    world = dataset._parallel_worker_world
    first_row = -(-skip // dataset.row_size)
    order = lazy_order(dataset, *layouts(dataset, world), epoch)
    worker, workers = world.worker_of_rank, world.workers_per_rank
    for batches, ahead in lazy_steps(order, dataset.rank, first_row, worker, workers):
        yield np.concatenate([*batches, *ahead]), batches
