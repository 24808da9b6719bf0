"""Samples that stand for a whole data set, out of few of its shards."""

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset


def spread_ids(dataset: StreamingDataset, samples: int, shards: int = 16) -> NDArray[np.int64]:
    """Ids of samples that are spread over a data set as its epochs are, the same on all ranks.

    Args:
        dataset: A data set whose streams have told how much of each an epoch has.
        samples: Number of samples; all of a smaller data set.
        shards: Shards that are read at most, so that no corpus is fetched for it.
    """
    if dataset.num_samples <= samples:
        return np.arange(dataset.num_samples)
    shards = min(shards, samples)
    sizes = np.asarray(dataset.samples_per_shard, np.int64)
    offsets = np.asarray(dataset.sample_offset_per_shard, np.int64)
    of_stream = np.asarray(dataset.stream_per_shard, np.int64)
    chosen = np.array([stream.choose for stream in dataset.streams], np.float64)
    mass = sizes * (chosen / np.bincount(of_stream, sizes, len(chosen)))[of_stream]
    ends = np.cumsum(mass)
    places = (np.arange(shards) + 0.5) / shards * ends[-1]
    taken, times = np.unique(np.searchsorted(ends, places, "right"), return_counts=True)
    found = []
    for shard, count in zip(taken, times, strict=True):
        number = min(int(sizes[shard]), samples * int(count) // shards)
        found.append(offsets[shard] + np.arange(number) * sizes[shard] // number)
    return np.concatenate(found)
