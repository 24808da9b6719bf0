"""Data sets without data, for tests of the order of their samples."""

import logging
from types import SimpleNamespace

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from streaming import StreamingDataset
from streaming.base.world import World

from attent_stream.order.lazy_order import lazy_order
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import generate_rows
from attent_stream.window.layout import canonical_slots


class Data(SimpleNamespace):
    """The attributes of a StreamingDataset that its order is made of.

    Args:
        streams: (shard sizes, choose) of each stream.
        kwargs: Settings of the data set.
    """

    resample_streams = StreamingDataset.resample_streams

    def __init__(self, streams, **kwargs) -> None:
        shards = [len(sizes) for sizes, _ in streams]
        self.samples_per_shard = np.concatenate([np.array(sizes, np.int64) for sizes, _ in streams])
        self.sample_offset_per_shard = np.cumsum(self.samples_per_shard) - self.samples_per_shard
        self.shards_per_stream = np.array(shards)
        self.shard_offset_per_stream = np.cumsum(shards) - shards
        self.sample_offset_per_stream = self.sample_offset_per_shard[self.shard_offset_per_stream]
        self.num_streams, self.num_samples = len(streams), int(self.samples_per_shard.sum())
        self.epoch_size = sum(choose for _, choose in streams)
        self.streams = [
            SimpleNamespace(choose=choose, proportion=choose / self.epoch_size)
            for _, choose in streams
        ]
        super().__init__(**kwargs)
        self.epoch_seed_change = self.shuffle and self.sampling_method == "balanced"


@st.composite
def jobs(draw, *, shuffle=None):
    """Draw a data set, a world and an epoch."""
    streams = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=9))
        weight = draw(st.sampled_from([1, 1, 2, 0.4, 2.3]))
        streams.append((sizes, max(1, int(weight * sum(sizes)))))
    data = Data(
        streams,
        shuffle=draw(st.booleans()) if shuffle is None else shuffle,
        shuffle_algo=draw(st.sampled_from(["py1e", "py1br", "py1s", "py2s", "naive"])),
        shuffle_seed=draw(st.integers(0, 50)),
        shuffle_block_size=draw(st.sampled_from([20, 100, 1 << 18])),
        num_canonical_nodes=draw(st.sampled_from([1, 2, 4, 6])),
        partition_algo=draw(st.sampled_from(["orig", "relaxed"])),
        initial_physical_nodes=draw(st.sampled_from([None, 1, 2])),
        batching_method=draw(
            st.sampled_from(["random", "stratified", "per_stream", "device_per_stream"])
        ),
        sampling_method=draw(st.sampled_from(["balanced", "fixed"])),
        sampling_granularity=draw(st.sampled_from([1, 7])),
        batch_size=draw(st.integers(1, 6)),
    )
    nodes, ranks = draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([1, 2, 3]))
    replication = draw(st.sampled_from([r for r in (1, 2, 3) if nodes * ranks % r == 0]))
    return data, World(nodes, ranks, 1, 0).replicate(replication), draw(st.integers(0, 3))


def both(job):
    """Make Streaming's rows and the lazy order of a job."""
    data, world, epoch = job
    logging.getLogger("streaming").setLevel(logging.ERROR)
    try:
        rows = generate_rows(data, world, epoch)
    except (ValueError, IndexError, ZeroDivisionError):
        assume(False)  # stock refuses (or cannot do) these settings
    return rows, lazy_order(data, *layouts(data, world), epoch)


def all_rows(order):
    """Every row of a lazy order in reading order, -1 where there is no sample."""
    return order.rows.between(0, order.rows.total)[:, canonical_slots(order.origin)]
