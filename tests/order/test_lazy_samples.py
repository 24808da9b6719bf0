"""The shuffled sequence, computed by position, against counts of each sample by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded

from attent_stream.order.lazy_samples import BLOCKS, Samples, Shuffle, Units


def units_of(sizes, counts, seed):
    sizes = np.array(sizes)
    return Units.of_shards(np.cumsum(sizes) - sizes, sizes, np.array(counts), seed)


@seeded(200)
@given(
    shards=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 80)), min_size=1, max_size=9),
    canonical=st.integers(1, 4),
    algo=st.sampled_from([None, *BLOCKS]),
    block_size=st.integers(1, 100),
    draw=st.data(),
)
def test_each_sample_is_read_as_often_as_its_shard(shards, canonical, algo, block_size, draw):
    sizes, counts = zip(*shards, strict=True)
    if not any(counts):
        return
    epoch = draw.draw(st.integers(0, 3))
    shuffle = algo and Shuffle(algo=algo, seed=1, epoch=epoch, block_size=block_size)
    samples = Samples(units_of(sizes, counts, 7), canonical, shuffle or None)
    ids = samples.ids(np.arange(samples.total))
    assert samples.total == len(ids) == sum(counts)
    often = np.bincount(ids, minlength=sum(sizes))
    for begin, size, count in zip(np.cumsum(sizes) - sizes, sizes, counts, strict=True):
        read = often[begin : begin + size]
        assert read.sum() == count and read.max() - read.min() <= 1
    some = draw.draw(st.lists(st.integers(0, samples.total - 1), max_size=6))
    assert samples.ids(np.array(some, np.int64)[:, None]).tolist() == ids[some][:, None].tolist()


def test_blocks_stay_within_their_borders():
    units = units_of([50] * 40, [50] * 40, 3)
    for algo in BLOCKS:
        shuffle = Shuffle(algo=algo, seed=3, epoch=1, block_size=100)
        samples = Samples(units, 4, shuffle)
        for edges, keys in samples._blocks:
            assert edges[0] == 0 and edges[-1] == samples.total and (np.diff(edges) > 0).all()
            assert len(keys) == len(np.unique(keys)) == len(edges) - 1
            if algo != "naive":
                assert np.isin(samples.borders, edges).all() and np.diff(edges).max() <= 100


@pytest.mark.parametrize("wrong", [{"algo": "py3"}, {"block_size": 0}])
def test_a_wrong_shuffle_is_refused(wrong):
    with pytest.raises(ValueError, match="shuffle_algo must be one of|shuffle_block_size must be"):
        Shuffle(**{"algo": "py1e", "seed": 1, "epoch": 0, "block_size": 9} | wrong)
