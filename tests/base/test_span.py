"""Times against the strings they are written as, and Composer's reading of them."""

import pytest
from composer.core import Time
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.base.span import UNITS, Clock, Span, told_as_span


@pytest.mark.parametrize(
    "text, value, unit",
    [
        ("0.1dur", 0.1, "dur"),
        ("100ba", 100, "ba"),
        ("1ep", 1, "ep"),
        ("1e6tok", 1e6, "tok"),
        (" 1_000 SP ", 1000, "sp"),
        ("2.5e+3ba", 2500, "ba"),
        (".5dur", 0.5, "dur"),
        ("0ba", 0, "ba"),
    ],
)
def test_time_strings(text, value, unit):
    span = Span.parse(text)
    assert (span.value, span.unit) == (value, unit)
    assert Span.parse(span) is span
    assert Span.parse(str(span)) == span


def test_times_are_read_as_composer_reads_them():
    for text in ("3ep", "1e3ba", "0.25dur", "7sp", "2e6tok"):
        theirs, ours = Time.from_timestring(text), Span.parse(text)
        assert (theirs.value, theirs.unit.value) == (ours.value, ours.unit)


@pytest.mark.parametrize(
    "text", ["", "ep", "ten ba", 5, None, True, "1ep2ba", "-1ep", "nanep", "infba", "1..2ba", "1 "]
)
def test_what_is_no_time_is_refused_with_its_value(text):
    with pytest.raises(ValueError, match="a time must") as caught:
        Span.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("3sec", "one of ep, ba, sp, tok, dur, got 'sec'"),
        ("2iter", "got 'iter'"),
        ("1.5dur", "at most 1, got 1.5dur"),
        ("1e999ba", "finite and not negative, got infba"),
    ],
)
def test_impossible_times(text, message):
    with pytest.raises(ValueError, match=message):
        Span.parse(text)


def test_the_clock():
    now = Clock(ep=1.5, ba=30, sp=60, tok=900, dur=0.25)
    assert [now.elapsed(unit) for unit in UNITS] == [1.5, 30, 60, 900, 0.25]
    assert now.fraction(Span.parse("2ep")) == 0.75
    assert now.fraction(Span.parse("10ba")) == 1.0
    assert now.fraction(Span.parse("0ba")) == 1.0
    with pytest.raises(ValueError, match="got 'sec'"):
        now.elapsed("sec")


@given(
    value=st.floats(0, 1e12, allow_subnormal=False), unit=st.sampled_from(["ep", "ba", "sp", "tok"])
)
def test_spans_are_read_as_they_are_printed(value, unit):
    span = Span(value=value, unit=unit)
    again = Span.parse(str(span))
    assert again.unit == unit and again.value == pytest.approx(value, rel=1e-5)
    assert told_as_span(span) and told_as_span(str(span)) and not told_as_span(f"x{span}")
    now = Clock(**{"ep": 0, "ba": 0, "sp": 0, "tok": 0, "dur": 0} | {unit: value / 2})
    assert now.fraction(span) == (0.5 if value else 1.0)
