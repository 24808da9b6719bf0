"""A dataset without shards: the attributes of a StreamingDataset that its order depends on."""

from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray


class SyntheticDataset:
    """A stream of equal shards, each read once in an epoch.

    Args:
        samples: Number of samples.
        shard: Samples in a shard.
        canonical_nodes: Streaming's ``num_canonical_nodes``.
        batch_size: Samples of a rank and step.
        shuffle_algo, shuffle_block_size: As for Streaming; None for its default block size.
    """

    partition_algo, batching_method, shuffle, shuffle_seed, initial_physical_nodes = (
        "relaxed",
        "random",
        True,
        9176,
        None,
    )
    sampling_method, sampling_granularity, epoch_seed_change, order = "balanced", 1, True, "lazy"
    num_streams = 1

    def __init__(
        self,
        samples: int,
        *,
        shard: int = 4096,
        canonical_nodes: int = 1,
        batch_size: int = 8,
        shuffle_algo: str = "py1e",
        shuffle_block_size: int | None = None,
    ) -> None:
        full, rest = divmod(samples, shard)
        self.samples_per_shard = np.array([shard] * full + [rest] * (rest > 0), np.int64)
        self.sample_offset_per_shard = np.cumsum(self.samples_per_shard) - self.samples_per_shard
        self.shards_per_stream, self.shard_offset_per_stream = (
            np.array([len(self.samples_per_shard)]),
            np.zeros(1, np.int64),
        )
        self.sample_offset_per_stream = np.zeros(1, np.int64)
        self.num_samples = self.epoch_size = samples
        self.streams = [SimpleNamespace(choose=samples, proportion=1.0)]
        self.num_canonical_nodes, self.batch_size, self.shuffle_algo = (
            canonical_nodes,
            batch_size,
            shuffle_algo,
        )
        self.shuffle_block_size = shuffle_block_size or max(4_000_000 // canonical_nodes, 1 << 18)

    def resample_streams(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard sizes and sample ids, each sample once."""
        return self.samples_per_shard, np.arange(self.epoch_size)
