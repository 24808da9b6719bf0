"""Whose turn it is: rows of several streams mixed evenly and at random, each stream's in its own
sequence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.permutation import fractions, keyed


@dataclass(frozen=True, kw_only=True)
class Turns:
    """A merge of streams: row ``i`` of a stream of ``n`` comes at a random time within ``[i / n, (i
    + 1) / n)``.

    Args:
        counts: Rows of each stream, 0 or more.
        key: Of the times.
    """

    counts: tuple[int, ...]
    key: int

    @property
    def total(self) -> int:
        """Rows of all streams."""
        return sum(self.counts)

    def between(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream of each merged row in ``[begin, end)``, and its place among that stream's: two
        int64 of shape (end - begin,).
        """
        # By a time t, a stream has had floor(t * n) rows or one more: the time of a row of the
        # merge is known that well.
        slack, total = len(self.counts) + 1, max(1, self.total)
        low, high = (begin - slack) / total, (end + slack) / total
        before, streams, places, times = 0, [], [], []
        for stream, count in enumerate(self.counts):
            first, last = self._before(stream, count, low), self._before(stream, count, high)
            before += first
            streams.append(np.full(last - first, stream))
            places.append(np.arange(first, last))
            times.append(self._times(stream, count, places[-1]))
        streams, places = np.concatenate(streams), np.concatenate(places)
        order = np.lexsort((streams, np.concatenate(times)))[begin - before : end - before]
        return streams[order], places[order]

    def _times(self, stream: int, count: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
        return (places + fractions(keyed(self.key, stream, places))) / max(1, count)

    def _before(self, stream: int, count: int, time: float) -> int:
        """Rows of a stream that come before a time."""
        near = max(0, min(count, int(np.floor(time * count)) - 1))
        places = np.arange(near, min(count, near + 4))
        return near + int((self._times(stream, count, places) < time).sum())
