"""Keyed permutations against brute force and what random permutations are on average."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded

from attent_stream.order.permutation import below, fractions, keyed, permuted


@seeded(150)
@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_permutations_are_bijective(size, key):
    places = permuted(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(places), np.arange(size))


def test_permutations_are_far_from_the_identity_and_from_each_other():
    """Mean displacement of a random permutation is n / 3, the correlation with another is of the
    size of n ** -0.5.
    """
    size = 1 << 20
    index = np.arange(size)
    one, two = (permuted(index, size, keyed(3, epoch)) for epoch in (0, 1))
    for places in (one, two, np.diff(one) % size):
        assert abs(np.abs(places - index[: len(places)]).mean() / size - 1 / 3) < 0.003
    for pair in ((one, index), (one, two), (one[1:], one[:-1])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 5 * size**-0.5
    large = permuted(np.arange(10**10 - 1000, 10**10), 10**10, keyed(1))
    assert len(np.unique(large)) == 1000 and large.min() >= 0 and large.max() < 10**10


@seeded(100)
@given(size=st.integers(1, 2**32), seed=st.integers(0, 99))
def test_keys_map_to_their_ranges(size, seed):
    keys = keyed(seed, np.arange(50))
    numbers = below(keys, size)
    assert [int(key >> np.uint64(32)) * size >> 32 for key in keys] == numbers.tolist()
    assert numbers.max() < size and fractions(keys).min() >= 0 and fractions(keys).max() < 1


def test_keys_depend_on_each_number_and_its_position():
    keys = keyed(np.arange(30)[:, None], np.arange(40))
    assert keys.shape == (30, 40) and len(np.unique(keys)) == 1200
    assert keys[3, 5] == keyed(3, 5)[0] != keyed(5, 3)[0]
    assert abs(fractions(keyed(1, np.arange(10_000))).mean() - 0.5) < 0.01
