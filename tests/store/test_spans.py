"""The shard of a sample against Streaming's spanner."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded
from streaming.base import dataset as streaming_dataset
from streaming.base.spanner import Spanner

from attent_stream.store.spans import SearchedSpanner, searched_spans


def test_shards_are_found_as_by_streamings_spanner():
    sizes = np.array([0, 3, 0, 0, 1500, 7, 0])
    ours, stock = SearchedSpanner(sizes), Spanner(sizes.copy())
    assert [ours[index] for index in range(1510)] == [stock[index] for index in range(1510)]
    for index in (-1, 1510):
        with pytest.raises(IndexError, match="Invalid sample index"):
            ours[index]


@seeded(100)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(any))
def test_any_sizes_are_searched(sizes):
    spans = SearchedSpanner(np.array(sizes))
    expected = [(shard, at) for shard, size in enumerate(sizes) for at in range(size)]
    assert [spans[index] for index in range(sum(sizes))] == expected


def test_streaming_uses_it_only_inside():
    with searched_spans():
        assert streaming_dataset.Spanner is SearchedSpanner
    assert streaming_dataset.Spanner is Spanner
