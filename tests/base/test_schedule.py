"""Schedules against their formulas at known points, and every mistake in them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.base.schedule import (
    SHARE_SHAPES,
    Interval,
    Phases,
    ShareSchedule,
    parse_interval,
    parse_share,
)
from attent_stream.base.span import Clock, Span


def clock(**times):
    return Clock(**{"ep": 0.0, "ba": 0, "sp": 0, "tok": 0, "dur": 0.0} | times)


@pytest.mark.parametrize(
    "shape, blends",  # at progress 0, 1/4, 1/2, 3/4, 1
    [
        ("constant", [0, 0, 0, 0, 0]),
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("cosine", [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1]),
        ("reverse_cosine", [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1]),
        ("step", [0, 0.2, 0.5, 0.7, 1]),
    ],
)
def test_shapes(shape, blends):
    assert [SHARE_SHAPES[shape](i / 4, 10) for i in range(5)] == pytest.approx(blends)


def test_step_has_n_stages():
    values = [SHARE_SHAPES["step"](i / 100, 5) for i in range(100)]
    assert sorted(set(values)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert all(values.count(value) == 20 for value in set(values))


def test_reverse_cosine_is_that_of_int():
    keep = parse_share({"schedule": "reverse_cosine", "from": 0.8, "to": 0.2})
    for i in range(11):  # mt_ratio - (mt_ratio - min_ratio) * (1 - cos(pi * p)) / 2
        expected = 0.8 - 0.5 * (0.8 - 0.2) * (1 - math.cos(math.pi * i / 10))
        assert keep.at(clock(dur=i / 10)) == pytest.approx(expected)


def test_keep_of_the_paper():
    keep = parse_share({"schedule": "cosine", "from": 0.2, "to": 0.8, "over": "800ep"})
    for epoch in range(0, 1000, 50):
        progress = min(1, epoch / 800)
        assert keep.at(clock(ep=epoch)) == pytest.approx(
            0.2 + 0.6 * (1 - math.cos(math.pi * progress)) / 2
        )


@given(
    st.sampled_from(sorted(SHARE_SHAPES)),
    st.floats(1e-6, 1),
    st.floats(1e-6, 1),
    st.integers(1, 50),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_keep_stays_between_its_ends_and_moves_one_way(shape, start, end, stages, times):
    if shape == "constant":
        end = start
    if shape == "reverse_cosine" and start <= end:
        start, end = 1.0, min(start, 0.5)
    keep = ShareSchedule(shape=shape, start=start, end=end, stages=stages)
    earlier, later = (keep.at(clock(dur=time)) for time in sorted(times))
    assert min(start, end) - 1e-12 <= earlier <= max(start, end) + 1e-12
    assert (later - earlier) * (end - start) >= -1e-12
    assert keep.at(clock(dur=0)) == start
    assert keep.at(clock(dur=1)) == end


def test_a_number_is_a_constant_keep():
    assert parse_share(0.7).at(clock(dur=0.3)) == 0.7
    assert parse_share(1).at(clock(dur=0.3)) == 1
    assert parse_share({"schedule": "constant", "from": 0.7}) == parse_share(0.7)
    assert parse_share(parse_share(0.5)) == parse_share(0.5)


RISING = {"schedule": "linear", "from": 0.2, "to": 0.8}


@pytest.mark.parametrize(
    "value, message",
    [
        (0, "at most 1, got 0"),
        (1.5, "at most 1, got 1.5"),
        (-0.1, "got -0.1"),
        (float("nan"), "got nan"),
        (True, "got True"),
        ("0.7", "got '0.7'"),
        (None, "got None"),
        (RISING | {"to": 1.2}, "at most 1, got 1.2"),
        (RISING | {"from": "a"}, "got 'a'"),
        (RISING | {"schedule": "cosin"}, "keep has no schedule 'cosin', did you mean 'cosine'?"),
        (RISING | {"form": 1}, "keep has no 'form', did you mean 'from'?"),
        (RISING | {"stages": 0}, "integer of at least 1, got 0"),
        (RISING | {"over": 3}, "a time must be a string .*got 3"),
        (
            RISING | {"schedule": "reverse_cosine"},
            "falls, so 'from' must be above 'to', got from 0.2 to 0.8",
        ),
        (RISING | {"schedule": "constant"}, "a constant keep cannot go from 0.2 to 0.8"),
        ({"schedule": "linear", "from": 0.2}, "keep needs 'to', got only 'schedule', 'from'"),
        ({}, "keep needs 'schedule', got only an empty mapping"),
    ],
)
def test_mistakes_in_keep(value, message):
    with pytest.raises(ValueError, match=message):
        parse_share(value)


def test_intervals():
    assert parse_interval("dense").at(clock()) == 0
    three = parse_interval("3ep")
    assert (three.unit, three.at(clock()), three.at(clock(dur=1))) == ("ep", 3, 3)
    assert parse_interval("1000ba").unit == "ba"
    grow = parse_interval({"schedule": "linear", "from": "5ep", "to": "50ep", "over": "1dur"})
    assert [grow.at(clock(dur=d)) for d in (0, 0.5, 1)] == [5, 27.5, 50]
    assert parse_interval(Span.parse("3ep")) == three and parse_interval(three) is three


def test_incremental_is_that_of_int():
    interval = parse_interval("incremental")
    assert interval.unit == "ep"
    assert [interval.at(clock(dur=d)) for d in (0, 0.1, 0.249)] == [0, 0, 0]
    for part in range(5):
        begin, end = 0.25 + 0.15 * part, 0.25 + 0.15 * (part + 1)
        for share in (begin, (begin + end) / 2, end - 1e-6):
            assert interval.at(clock(dur=share)) == 10 * (part + 1)
    assert interval.at(clock(dur=1.0)) == 50


@pytest.mark.parametrize(
    "value, message",
    [
        ("densee", "interval must be 'dense', .*got 'densee'"),
        (5, "got 5"),
        (None, "got None"),
        ("3sec", "got 'sec'"),
        (
            {"schedule": "linear", "from": "5ep", "to": "50ba"},
            "must have the same unit, got 5ep and 50ba",
        ),
        ({"schedule": "linear", "from": "5ep"}, "interval needs 'to'"),
        (
            {"schedule": "linaer", "from": "5ep", "to": "6ep"},
            "no schedule 'linaer', did you mean 'linear'?",
        ),
        (
            {"schedule": "linear", "from": "5ep", "to": "6ep", "ovr": "1dur"},
            "no 'ovr', did you mean 'over'?",
        ),
    ],
)
def test_mistakes_in_interval(value, message):
    with pytest.raises(ValueError, match=message):
        parse_interval(value)


def test_an_interval_checks_its_values():
    with pytest.raises(ValueError, match="not negative"):
        Interval(start=-1.0)


def phases(warmup="0ba", anneal="0dur"):
    return Phases(warmup=Span.parse(warmup), anneal=Span.parse(anneal))


def test_teaching_begins_after_the_warmup():
    assert phases().teaching(clock(), None)
    assert not phases("10ba").teaching(clock(ba=9), None)
    assert phases("10ba").teaching(clock(ba=10), None)
    assert not phases("1ep").teaching(clock(ep=0.99), None)
    assert phases("0.1dur").teaching(clock(dur=0.1), None)


def test_teaching_ends_before_the_anneal():
    for i in range(1, 100):  # the border itself belongs to the anneal, whatever the rounding
        assert not phases(anneal=f"{i / 100}dur").teaching(clock(dur=1 - i / 100), None)
        assert phases(anneal=f"{i / 100}dur").teaching(clock(dur=1 - i / 100 - 1e-6), None)
    total = Span.parse("1000ba")
    assert phases(anneal="100ba").teaching(clock(ba=899), total)
    assert not phases(anneal="100ba").teaching(clock(ba=900), total)
    assert not phases(anneal="1dur").teaching(clock(), total)


def test_an_anneal_needs_a_known_end():
    with pytest.raises(ValueError, match="in dur or in the unit of max_duration, 3ep, got 100ba"):
        phases(anneal="100ba").teaching(clock(), Span.parse("3ep"))
    with pytest.raises(ValueError, match="max_duration, which is not known, got 100ba"):
        phases(anneal="100ba").check(None)
    phases(warmup="5tok", anneal="0ba").check(Span.parse("3ep"))
