"""Selection against brute-force loops and what a sampler must do on average."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attent_stream.window.selection import below_ceiling, quota_rows, select_lanes
from attent_stream.window.selectors import SELECTORS, selector

NAMES = sorted([*SELECTORS.known, "prune", "unbiased", "proportional"])


def chosen(name, *args):
    """Positions alone: weights are the selector's own test's."""
    found = selector(name).choose(*args)
    return found[0] if isinstance(found, tuple) else found


any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)


def rng(*seed):
    return np.random.default_rng([0, *seed])


@pytest.mark.parametrize(
    "call, text",
    [
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


@settings(max_examples=20)
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
