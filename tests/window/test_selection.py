"""Selection against brute-force loops and what a sampler must do on average."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attent_stream.window.selection import below_ceiling, quota_rows, select_lanes
from attent_stream.window.selectors import SELECTORS, hard, random, selector, soft

NAMES = sorted([*SELECTORS.known, "prune", "unbiased", "proportional"])


def chosen(name, *args):
    """Positions alone: weights are the selector's own test's."""
    found = selector(name).choose(*args)
    return found[0] if isinstance(found, tuple) else found


any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)


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
        (lambda: quota_rows(np.zeros(3, int), 4, 0.0), "got 4"),
        (lambda: quota_rows(np.zeros(3, int), 2, 1.0), r"u must be in \[0, 1\), got 1\.0"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def lanes_of(scores, lanes, wanted, select="hard", **changes):
    settings = {"temperature": 1.0, "seed": 17, "epoch": 2, "window": 3} | changes
    return select_lanes(scores, lanes, wanted, select=select, **settings)[0]


@st.composite
def windows(draw):
    rows, slots = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    labels = st.sampled_from([0, 1, 4, 40000])
    lanes = draw(hnp.arrays(np.int64, (rows, slots), elements=labels))
    lessons = draw(st.integers(0, rows))
    chosen = sorted(draw(st.permutations(range(rows)))[:lessons])
    scores = draw(hnp.arrays(np.float32, (rows, slots), elements=any_float))
    return scores, lanes, lanes[chosen]


@given(windows(), st.sampled_from(NAMES))
def test_select_lanes_is_the_loop_over_lanes(case, select):
    scores, lanes, wanted = case
    expected = np.full(wanted.size, -1)
    for lane in np.unique(lanes):
        members = [i for i in range(lanes.size) if lanes.flat[i] == lane]
        slots = [i for i in range(wanted.size) if wanted.flat[i] == lane]
        generator = np.random.default_rng([17, 2, 3, int(lane)])
        picked = chosen(
            select, scores.reshape(-1)[members], len(members), len(slots), generator, 1.0
        )
        for slot, position in zip(slots, picked, strict=True):
            expected[slot] = members[position]
    got = lanes_of(scores, lanes, wanted, select)
    assert got.dtype == np.int64 and got.shape == wanted.shape
    if wanted.shape == lanes.shape:  # everything is kept
        np.testing.assert_array_equal(got.reshape(-1), np.arange(lanes.size))
    np.testing.assert_array_equal(got.reshape(-1), expected)
    np.testing.assert_array_equal(lanes.reshape(-1)[got], wanted)  # a sample stays in its lane
    assert len(np.unique(got)) == got.size  # and is selected once


@given(
    st.integers(0, 2**31),
    st.sampled_from([(64, 6), (40, 300), (3, 4096)]),
    st.floats(0.05, 20),
    st.booleans(),
)
def test_lanes_selected_together_are_as_each_alone(seed, shape, temperature, rounded):
    """Larger lanes, where sums of a row could differ from those of a lone array; with ties, and a
    lane with unknown scores.
    """
    lanes, size = shape
    scores = rng(seed).normal(size=(size, lanes)).astype(np.float32)
    scores = np.round(scores, 1) if rounded else scores
    scores[seed % size, 0] = np.nan
    labels = np.arange(lanes)[None].repeat(size, 0)
    for select in NAMES:
        got = (
            lanes_of(scores, labels, labels[: size // 2], select, temperature=temperature) // lanes
        )
        for lane in range(lanes):
            generator = np.random.default_rng([17, 2, 3, lane])
            alone = chosen(select, scores[:, lane], size, size // 2, generator, temperature)
            np.testing.assert_array_equal(got[:, lane], alone)


def test_a_draw_depends_on_seed_epoch_window_and_lane_only():
    lanes = np.repeat(np.arange(2), 50)[None].repeat(4, 0)
    base = lanes_of(None, lanes, lanes[:2], "random")
    for change in ({"seed": 18}, {"epoch": 3}, {"window": 4}):
        assert not np.array_equal(lanes_of(None, lanes, lanes[:2], "random", **change), base)
    # Lane 1 without lane 0 beside it
    alone = lanes_of(None, lanes[:, 50:], lanes[:2, 50:], "random")
    rows, columns = np.divmod(alone, 50)
    np.testing.assert_array_equal(rows * 100 + columns + 50, base[:, 50:])
    assert not np.array_equal(base[:, :50] + 50, base[:, 50:])  # lanes draw differently


@pytest.mark.parametrize(
    "change, text",
    [
        (
            {"select": "best"},
            "select has no 'best', .known: hard, soft, random, prune, unbiased, proportional, "
            "predicted.",
        ),
        ({"scores": None}, r"select='hard' needs scores of shape \(3, 2\), got None"),
        ({"scores": np.zeros((2, 2))}, r"shape \(3, 2\), got \(2, 2\)"),
        ({"wanted": np.array([[0, 0], [0, 0]])}, "at least 4 candidates in lane 0, got 3"),
        ({"wanted": np.array([[7, 0]])}, "at least 1 candidates in lane 7, got 0"),
        ({"lanes": np.array([[0, -1]] * 3)}, "lanes must be non-negative, got -1"),
    ],
)
def test_select_lanes_names_mistakes(change, text):
    lanes = np.array([[0, 1]] * 3)
    arguments = {"scores": np.zeros((3, 2)), "lanes": lanes, "wanted": lanes[:1]} | change
    with pytest.raises(ValueError, match=text):
        lanes_of(**arguments)


def test_a_million_slots_and_many_lanes():
    lanes = np.tile(np.arange(512), (1000, 2))
    scores = rng(9).normal(size=lanes.shape).astype(np.float32)
    got = lanes_of(scores, lanes, lanes[:500])
    columns = got % 1024 % 512
    np.testing.assert_array_equal(columns, lanes[:500])
    worst = np.full(512, np.inf)
    np.minimum.at(worst, columns.reshape(-1), scores.reshape(-1)[got.reshape(-1)])
    dropped = np.ones(lanes.size, bool)
    dropped[got.reshape(-1)] = False
    best_dropped = np.full(512, -np.inf)
    np.maximum.at(best_dropped, lanes.reshape(-1)[dropped], scores.reshape(-1)[dropped])
    assert (worst >= best_dropped).all()


@st.composite
def quotas(draw):
    keys = draw(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-2, 4)))
    return keys, draw(st.integers(0, len(keys))), draw(st.floats(0, 1, exclude_max=True))


@given(quotas())
def test_quota_rows_keeps_every_share(case):
    keys, count, u = case
    rows = quota_rows(keys, count, u)
    assert rows.dtype == np.int64 and rows.shape == (count,)
    assert np.all(np.diff(rows) > 0)
    for key in np.unique(keys):
        members = np.flatnonzero(keys == key)
        share = Fraction(count * len(members), len(keys))
        got = np.flatnonzero(np.isin(members, rows))
        assert math.floor(share) <= len(got) <= math.ceil(share)
        if len(got) > 1:  # evenly spread: gaps differ by at most one
            assert np.ptp(np.diff(got)) <= 1


@given(quotas())
def test_quota_rows_is_unbiased(case):
    keys, count, _ = case
    counts = np.zeros(len(keys), int)
    for step in range(len(keys)):  # every offset the function tells apart
        counts[quota_rows(keys, count, (step + 0.5) / len(keys))] += 1
    assert (counts == count).all()


@given(windows(), st.floats(0, 0.99))
def test_below_the_ceiling_is_the_loop_over_lanes(case, ceiling):
    scores, lanes, _ = case
    flat, labels = scores.reshape(-1), lanes.reshape(-1)
    expected = flat.copy()
    for lane in np.unique(labels):
        members = [i for i in np.flatnonzero(labels == lane) if np.isfinite(flat[i])]
        highest = sorted(members, key=lambda i: (flat[i], i))[::-1]
        for i in highest[: int(ceiling * len(members) + 1e-9)]:
            expected[i] = np.nan
    before = scores.copy()
    np.testing.assert_array_equal(below_ceiling(scores, lanes, ceiling).reshape(-1), expected)
    np.testing.assert_array_equal(scores, before)
