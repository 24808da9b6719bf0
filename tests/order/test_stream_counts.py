"""Samples of each shard against Streaming's own sampling; partial reads against brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded
from streaming.base.sampling import get_sampling

from attent_stream.order.permutation import keyed
from attent_stream.order.stream_counts import partial_choice, shard_counts


@seeded(200)
@given(samples=st.integers(1, 300), data=st.data())
def test_partial_repeats_take_different_samples_in_ascending_sequence(samples, data):
    take = data.draw(st.integers(1, samples))
    key = np.full(take, data.draw(st.integers(0, 2**64 - 1)), np.uint64)
    chosen = partial_choice(np.arange(take), np.full(take, samples), np.full(take, take), key)
    assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < samples


def test_partial_repeats_are_fair():
    samples, take, draws = 10, 7, 20_000
    index, keys = np.tile(np.arange(take), draws), np.repeat(keyed(np.arange(draws)), take)
    full = np.ones(len(index), np.int64)
    share = (
        np.bincount(partial_choice(index, samples * full, take * full, keys), minlength=samples)
        / draws
    )
    assert abs(share - take / samples).max() < 0.02


@seeded(200)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    choose=st.integers(0, 700),
    granularity=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_shard_counts_are_streamings(sizes, choose, granularity, seed):
    sizes = np.array(sizes)
    stock = get_sampling(sizes, choose, granularity, seed, 0, False)
    assert np.array_equal(shard_counts(sizes, choose, granularity, seed), stock)
    shares = shard_counts(sizes, choose, granularity, seed, exact_picks=0)
    assert shares.sum() == choose and (abs(shares - choose * sizes / sizes.sum()) <= 1.000001).all()
