"""Samples of a few shards stand for streams as they are in an epoch."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.data.spread import spread_ids


def data(shards: list[list[int]], choose: list[int]) -> SimpleNamespace:
    sizes = np.array(sum(shards, []))
    return SimpleNamespace(
        num_samples=int(sizes.sum()),
        samples_per_shard=sizes,
        sample_offset_per_shard=np.cumsum(sizes) - sizes,
        stream_per_shard=np.repeat(np.arange(len(shards)), [len(some) for some in shards]),
        streams=[SimpleNamespace(choose=number) for number in choose],
    )


SHARDS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), min_size=1, max_size=4)


@given(SHARDS, st.integers(1, 300), st.integers(1, 20), st.data())
def test_ids_are_distinct_and_of_few_shards(shards, samples, most, given_data):
    choose = [given_data.draw(st.integers(1, 400)) for _ in shards]
    made = data(shards, choose)
    ids = spread_ids(made, samples, most)
    assert len(np.unique(ids)) == len(ids) and ids.min() >= 0 and ids.max() < made.num_samples
    if made.num_samples > samples:
        assert len(ids) <= samples
        shard = np.searchsorted(made.sample_offset_per_shard, ids, "right")
        assert len(np.unique(shard)) <= most
    else:
        assert len(ids) == made.num_samples


def test_streams_are_as_in_an_epoch():
    """Two streams as large as each other, one of which is drawn from three times as often."""
    made = data([[1000] * 10, [1000] * 10], [10_000, 30_000])
    ids = spread_ids(made, 1024)
    assert len(ids) == 1024 and np.mean(ids >= 10_000) == 0.75
