"""What an epoch reads of a stream."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset

from attent_stream.order.lazy_samples import Samples, Shuffle, Units
from attent_stream.order.ranged_samples import RangedSamples, can_be_ranged
from attent_stream.order.stream_counts import shard_counts


@dataclass(frozen=True, kw_only=True)
class StreamReads:
    """What an epoch reads of a stream's shards, as in Streaming's ``resample_streams``.

    Args:
        first: Id of each shard's first sample, int64 of shape (shards,).
        samples: Samples of each shard, same shape.
        choose: Samples to read of the whole stream.
        granularity: Samples drawn at a time from one shard.
        count_seed: Seeds how many samples are read of each shard.
        seed: Seeds which ones.
    """

    first: NDArray[np.int64]
    samples: NDArray[np.int64]
    choose: int
    granularity: int
    count_seed: int
    seed: int

    @classmethod
    def of_epoch(cls, dataset: StreamingDataset, stream: int, epoch: int) -> "StreamReads":
        """What an epoch reads of one stream of a data set."""
        begin = int(dataset.shard_offset_per_stream[stream])
        shards = slice(begin, begin + int(dataset.shards_per_stream[stream]))
        seed = dataset.shuffle_seed + epoch
        return cls(
            first=dataset.sample_offset_per_shard[shards],
            samples=dataset.samples_per_shard[shards],
            choose=int(dataset.streams[stream].choose),
            granularity=dataset.sampling_granularity,
            count_seed=seed if dataset.epoch_seed_change else dataset.shuffle_seed,
            seed=seed if dataset.sampling_method == "balanced" else dataset.shuffle_seed,
        )

    def units(self) -> Units:
        """The reads of each shard."""
        counts = shard_counts(self.samples, self.choose, self.granularity, self.count_seed)
        return Units.of_shards(self.first, self.samples, counts, self.seed)


def samples_of(
    reads: list[StreamReads], canonical_nodes: int, shuffle: Shuffle | None
) -> Samples | RangedSamples:
    """An epoch's sequence of the samples of some streams.

    Args:
        reads: What is read of each stream.
        canonical_nodes: Number of even stretches that the sequence is cut into.
        shuffle: The settings of the shuffle, or None for no shuffle.
    """
    shards = sum(len(stream.samples) for stream in reads)
    if can_be_ranged(shards, canonical_nodes, shuffle):
        return RangedSamples(reads, canonical_nodes, shuffle)
    return Samples(Units.joined([stream.units() for stream in reads]), canonical_nodes, shuffle)
