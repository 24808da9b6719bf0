"""Composer's time in our units."""

import pytest
from composer import Time

from attent_stream.base.duration import total_span
from attent_stream.base.span import Span


@pytest.mark.parametrize("text", ["3ep", "100ba", "7sp", "2000tok"])
def test_units_that_both_have(text):
    assert total_span(Time.from_timestring(text)) == Span.parse(text)


def test_other_lengths_are_not_known():
    assert total_span(None) is None
    assert total_span(Time.from_timestring("30sec")) is None
    assert total_span(Time.from_timestring("5iter")) is None
