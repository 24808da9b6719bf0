"""Counting good and bad records."""

import pytest

from attent_stream.corpus import BadRecords, CorpusError
from attent_stream.corpus.tally import FIRST, Tally


def tally(good: int, *bad: tuple[str, str, int]) -> Tally:
    made = Tally("s")
    made.good = good
    for entry in bad:
        made.add_bad(*entry)
    return made


def test_the_most_frequent_reason_comes_first_with_its_first_places():
    made = tally(20, ("x", "f:1", 1), *(("y", f"g:{n}", 2) for n in range(FIRST + 1)))
    assert made.records() == (
        BadRecords(stream="s", reason="y", count=12, first=tuple(f"g:{n}" for n in range(FIRST))),
        BadRecords(stream="s", reason="x", count=1, first=("f:1",)),
    )


def test_half_may_be_bad_but_not_more():
    tally(2, ("x", "f:1", 2)).check()
    with pytest.raises(CorpusError, match=r"3 of 5 records are bad.*3 x x \(first: f:1\)"):
        tally(2, ("x", "f:1", 3)).check()
    with pytest.raises(CorpusError, match="stream 's' holds no record"):
        tally(0).check()
