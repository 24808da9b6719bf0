"""Selectors: brute force, and what a draw must do on average."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attent_stream.window.selectors import (
    SELECTORS,
    Selector,
    hard,
    random,
    select_each,
    selector,
    soft,
)

NAMES = sorted([*SELECTORS.known, "prune", "unbiased", "proportional"])
any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)


def chosen(name, *args):
    """Positions alone: weights are the selector's own test's."""
    found = selector(name).choose(*args)
    return found[0] if isinstance(found, tuple) else found


def rng(*seed):
    return np.random.default_rng([0, *seed])


@st.composite
def lane_cases(draw):
    scores = draw(hnp.arrays(np.float32, st.integers(0, 30), elements=any_float))
    return scores, draw(st.integers(0, len(scores)))


@given(lane_cases(), st.sampled_from(NAMES), st.floats(1e-3, 1e3))
def test_a_selector_returns_count_ascending_positions_and_prefers_known_scores(
    case, name, temperature
):
    scores, count = case
    before = scores.copy()
    positions = chosen(name, scores, len(scores), count, rng(1), temperature)
    assert positions.dtype == np.int64 and positions.shape == (count,)
    assert np.all(np.diff(positions) > 0)
    assert count == 0 or (positions[0] >= 0 and positions[-1] < len(scores))
    np.testing.assert_array_equal(scores, before)
    if selector(name).needs_scores:
        known = int(np.isfinite(scores).sum())
        assert np.isfinite(scores[positions]).sum() == min(known, count)
    again = chosen(name, scores, len(scores), count, rng(1), temperature)
    np.testing.assert_array_equal(positions, again)


@given(lane_cases())
def test_hard_is_brute_force_with_earlier_first(case):
    scores, count = case
    known = [i for i in range(len(scores)) if math.isfinite(scores[i])]
    best = sorted(sorted(known, key=lambda i: (-float(scores[i]), i))[:count])
    selected = hard(scores, len(scores), count, rng(), 1.0)
    assert [i for i in selected if math.isfinite(scores[i])] == best


def test_unknown_scores_fill_at_random():
    scores = np.array([np.nan, 1.0, np.inf, -np.inf, np.nan])
    counts = np.zeros(5)
    for trial in range(4000):
        counts[hard(scores, 5, 2, rng(trial), 1.0)] += 1
    assert counts[1] == 4000
    np.testing.assert_allclose(counts[[0, 2, 4]] / 4000, 1 / 3, atol=0.04)
    assert counts[3] == 0  # known to have no label: only where nothing else is left
    np.testing.assert_array_equal(hard(scores, 5, 5, rng(), 1.0), range(5))


@pytest.mark.parametrize("spread", [1e-30, 1.0, 1e30])
def test_soft_goes_from_hard_to_random_with_temperature(spread):
    scores = rng(3).normal(size=64) * spread
    top = hard(scores, 64, 16, rng(), 1.0)

    def overlap(temperature, trials=150):
        shared = [
            len(np.intersect1d(top, soft(scores, 64, 16, rng(t), temperature)))
            for t in range(trials)
        ]
        return np.mean(shared) / 16

    np.testing.assert_array_equal(soft(scores, 64, 16, rng(), 1e-12), top)
    np.testing.assert_array_equal(soft(scores, 64, 16, rng(), 5e-324), top)
    assert overlap(1e9) == pytest.approx(0.25, abs=0.04)  # 16 of 64 at random
    assert overlap(np.inf) == pytest.approx(0.25, abs=0.04)
    values = [overlap(t) for t in (0.02, 0.2, 0.7, 2.0, 10.0)]
    assert values == sorted(values, reverse=True) and values[0] > 0.9


def test_soft_draws_with_the_probabilities_of_the_softmax():
    scores = np.array([3.0, 1.0, 0.0, -2.0]) * 7 + 100
    z = (scores - scores.mean()) / scores.std()
    trials = 8000
    counts = np.zeros(4)
    generator = rng(5)
    for _ in range(trials):
        counts[soft(scores, 4, 1, generator, 0.8)] += 1
    expected = np.exp(z / 0.8) / np.exp(z / 0.8).sum()
    np.testing.assert_allclose(counts / trials, expected, atol=4 * np.sqrt(0.25 / trials))


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_soft_does_not_see_the_unit_of_the_scores(seed, temperature, shift, scale):
    scores = np.random.default_rng(seed).normal(size=20)
    expected = soft(scores, 20, 7, rng(seed), temperature)
    assert np.array_equal(soft(scores * scale + shift, 20, 7, rng(seed), temperature), expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300, 5e-324])
def test_soft_without_spread_is_random(value):
    counts = np.zeros(6)
    for trial in range(3000):
        counts[soft(np.full(6, value), 6, 2, rng(trial), 1e-6)] += 1
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.05)


def test_soft_survives_extreme_scores():
    scores = np.array([-1.7e308, 1.7e308, 0.0, 5e-324])
    with np.errstate(all="raise", under="ignore"):
        assert soft(scores, 4, 1, rng(), 1e-9).tolist() == [1]


def test_random_takes_every_subset_alike_and_no_scores():
    seen = {}
    for trial in range(6000):
        key = tuple(random(None, 4, 2, rng(trial), 1.0))
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 6
    np.testing.assert_allclose(np.array(list(seen.values())) / 6000, 1 / 6, atol=0.03)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: hard(None, 4, 2, rng(), 1.0), r"scores must have shape \(4,\), got None"),
        (lambda: hard(np.zeros(3), 4, 2, rng(), 1.0), r"shape \(4,\), got \(3,\)"),
        (lambda: hard(np.zeros(4), 4, 5, rng(), 1.0), "between 0 and the 4 candidates, got 5"),
        (lambda: random(None, 4, -1, rng(), 1.0), "got -1"),
        (
            lambda: soft(np.zeros(4), 4, 2, rng(), 0.0),
            r"temperature must be greater than 0, got 0\.0",
        ),
        (lambda: soft(np.zeros(4), 4, 2, rng(), float("nan")), "temperature"),
        (lambda: selector("harder"), "select has no 'harder', did you mean 'hard'"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_a_users_function_needs_scores_and_is_checked():
    found = selector("numpy:argsort")
    assert found.choose is np.argsort and found.needs_scores and found.checked


def own(returned):
    """What ``select_each`` makes of a user's selector that returns this."""
    selector = Selector(choose=lambda *args: returned, checked=True)
    return select_each(selector, np.zeros((1, 4)), 1, 4, 2, rng, 1.0)


def test_a_users_result_is_sorted_with_its_weights():
    positions, weights = own((np.array([3, 1]), np.array([0.5, 2.0])))
    assert positions.tolist() == [[1, 3]] and weights.tolist() == [[2.0, 0.5]]
    assert own([2, 0])[1].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "returned",
    [
        np.array([1]),
        np.array([1, 1]),
        np.array([-1, 2]),
        np.array([1, 4]),
        np.array([0.0, 1.0]),
        (np.array([0, 1]), np.ones(3)),
    ],
)
def test_a_users_bad_positions_are_refused(returned):
    with pytest.raises(ValueError, match="select: expected 2 different positions below 4"):
        own(returned)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_users_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match="select: expected finite weights of at least 0"):
        own((np.array([0, 1]), np.array([1.0, weight])))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 9)), elements=any_float),
    st.sampled_from(NAMES),
    st.data(),
)
def test_select_each_is_the_loop_over_lanes(scores, name, data):
    lanes, size = scores.shape
    count = data.draw(st.integers(0, size))
    positions, weights = select_each(selector(name), scores, lanes, size, count, rng, 0.7)
    assert positions.shape == weights.shape == (lanes, count)
    for lane in range(lanes):
        alone = chosen(name, scores[lane], size, count, rng(lane), 0.7)
        np.testing.assert_array_equal(positions[lane], alone)
