"""Merges of streams: brute force over all rows for any window of them."""

from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded

from attent_stream.order.merge import Merge


@seeded(200)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    key=st.integers(0, 99),
    data=st.data(),
)
def test_each_stream_keeps_its_sequence_in_any_window(counts, key, data):
    merge = Merge(counts=tuple(counts), key=key)
    streams, numbers = merge.between(0, merge.total)
    for stream, count in enumerate(counts):
        assert numbers[streams == stream].tolist() == list(range(count))
    begin = data.draw(st.integers(0, merge.total))
    end = data.draw(st.integers(begin, merge.total))
    assert [part.tolist() for part in merge.between(begin, end)] == [
        streams[begin:end].tolist(),
        numbers[begin:end].tolist(),
    ]


@seeded(50)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5), key=st.integers(0, 99))
def test_streams_are_mixed_evenly(counts, key):
    """The time of a stream's row is within 1 / n of its share of the stream."""
    merge = Merge(counts=tuple(counts), key=key)
    streams, numbers = merge.between(0, merge.total)
    for row, (stream, number) in enumerate(zip(streams, numbers, strict=True)):
        low = sum(max(0, number * n // counts[stream] - 1) for n in counts)
        high = sum(-(-(number + 1) * n // counts[stream]) + 1 for n in counts)
        assert low <= row <= high
