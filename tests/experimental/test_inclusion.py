"""Inclusion probabilities. Oracles: the formulae of the papers, sums, and averages over many
draws.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attent_stream.experimental.inclusion import (
    INCLUSIONS,
    draw,
    moment_gain,
    proportional,
    prune,
    unbiased,
    weights,
)

DESIGNS = INCLUSIONS | {"proportional": proportional}
SCORES = arrays.arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.one_of(st.floats(-1e6, 1e6), st.just(np.nan), st.just(np.inf)),
)


@given(
    SCORES,
    st.floats(0, 1),
    st.sampled_from(sorted(DESIGNS)),
    st.floats(0.1, 10),
    st.integers(0, 2**32),
)
def test_exactly_so_many_are_drawn(scores, share, name, temperature, seed):
    count = round(share * len(scores))
    pi = DESIGNS[name](scores, count, temperature)
    assert pi.shape == scores.shape and (pi >= 0).all() and (pi <= 1).all()
    assert pi.sum() == pytest.approx(count)
    drawn = draw(pi, count, np.random.default_rng(seed))
    assert len(drawn) == count and (np.diff(drawn) > 0).all() and (pi[drawn] > 0).all()
    known = np.isfinite(scores)
    if known.sum() >= count:
        assert known[drawn].all()
    else:
        assert np.isin(np.flatnonzero(known), drawn).all()
    if name not in INCLUSIONS:
        return
    given_weights = weights(pi, scores, count)
    assert np.isfinite(given_weights).all() and (given_weights > 0).all()
    assert (given_weights[~known] == 1).all()
    if known.all() and count:
        # The lessons weigh 1 in the mean over all draws
        assert given_weights @ pi == pytest.approx(count)


@pytest.mark.parametrize("name", sorted(INCLUSIONS))
def test_each_is_drawn_as_often_as_it_should_be(name):
    rng = np.random.default_rng(3)
    scores, values = rng.gamma(0.5, size=30), rng.normal(size=30)
    pi = INCLUSIONS[name](scores, 12, 1.0)
    weight = weights(pi, scores, 12)
    often, means = np.zeros(30), []
    for _ in range(20_000):
        drawn = draw(pi, 12, rng)
        often[drawn] += 1
        means.append((weight[drawn] * values[drawn]).mean())
    np.testing.assert_allclose(often / 20_000, pi, atol=0.015)
    assert np.mean(means) == pytest.approx(values.mean(), abs=0.01)  # Horvitz and Thompson


def test_prune_is_infobatch_with_a_count():
    scores = np.array([5.0, 1.0, 2.0, 9.0, 1.5, 0.5])  # mean 3.17: four are easy
    np.testing.assert_allclose(prune(scores, 4, 1.0), [1, 0.5, 0.5, 1, 0.5, 0.5])
    np.testing.assert_allclose(
        weights(prune(scores, 4, 1.0), scores, 4), np.array([1, 2, 2, 1, 2, 2]) * 4 / 6
    )
    np.testing.assert_allclose(prune(scores, 6, 1.0), 1.0)
    # 4 of the 4 easy is too many: all count as easy
    np.testing.assert_allclose(prune(scores, 2, 1.0), 2 / 6)
    np.testing.assert_allclose(prune(scores, 3, 1.0), [1, 0.25, 0.25, 1, 0.25, 0.25])


def test_unbiased_is_in_proportion_to_the_score():
    scores = np.array([1.0, 2.0, 3.0, 2.0])
    np.testing.assert_allclose(unbiased(scores, 2, 1.0), 2 * (0.8 * scores / 8 + 0.2 / 4))
    np.testing.assert_allclose(unbiased(scores, 2, 0.5), 2 * (0.8 * scores**2 / 18 + 0.2 / 4))
    # Never above 1
    np.testing.assert_allclose(
        unbiased(np.array([100.0, 1, 1, 1]), 2, 1.0), [1, 1 / 3, 1 / 3, 1 / 3]
    )
    np.testing.assert_allclose(unbiased(np.zeros(4), 2, 1.0), 0.5)
    assert weights(unbiased(np.array([1e9, 0, 0, 0]), 2, 1.0), np.zeros(4), 2).max() <= 5


def test_groups_drawn_in_proportion_have_their_quotas():
    """Of one score each, every draw has the expected number of each but for rounding."""
    rng = np.random.default_rng(6)
    scores = rng.permutation(np.repeat([1.0, 2.0, 0.0, 5.0], [40, 30, 20, 10]))
    pi = proportional(scores, 40, 1.0)
    np.testing.assert_allclose(pi[scores == 5], 1.0)
    np.testing.assert_allclose(pi[scores == 2], 2 * pi[scores == 1][0])
    often = np.zeros(100)
    for _ in range(4000):
        drawn = draw(pi, 40, rng, along=scores)
        assert len(drawn) == 40
        for score in (0.0, 1.0, 2.0, 5.0):
            assert abs((scores[drawn] == score).sum() - pi[scores == score].sum()) < 1
        often[drawn] += 1
    np.testing.assert_allclose(often / 4000, pi, atol=0.04)


def test_moment_gain_against_draws():
    rng = np.random.default_rng(4)
    norms = rng.gamma(0.4, size=50)
    for name, inclusion in INCLUSIONS.items():
        pi = inclusion(norms, 20, 1.0)
        weight = weights(pi, norms, 20)
        second = np.mean(
            [np.square((weight * norms)[draw(pi, 20, rng)]).mean() for _ in range(20_000)]
        )
        assert moment_gain(norms, pi) == pytest.approx(
            np.square(norms).mean() / second, rel=0.03
        ), name
    assert moment_gain(norms, np.full(50, 0.4)) == pytest.approx(1.0)
    assert moment_gain(np.full(3, np.nan), np.full(3, 0.5)) == 1.0
    ideal = moment_gain(norms, 0.2 * norms / norms.max())
    # In proportion to the norm: the most there is
    assert ideal == pytest.approx(np.square(norms).mean() / norms.mean() ** 2)
