"""A random, even merge of the rows of several streams; each stream's rows keep their sequence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.permutation import fractions, keyed


@dataclass(frozen=True, kw_only=True)
class Merge:
    """A merge in which row ``i`` of ``n`` comes at a random time in ``[i / n, (i + 1) / n)``.

    Args:
        counts: Rows of each stream, 0 or more.
        key: Key of the random times.
    """

    counts: tuple[int, ...]
    key: int

    @property
    def total(self) -> int:
        """Rows of all streams."""
        return sum(self.counts)

    def between(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the stream of each merged row in ``[begin, end)`` and its number in the stream.

        Returns:
            Two int64 arrays of shape (end - begin,).
        """
        # By time t a stream has had floor(t * n) rows or one more, which bounds the time of each
        # merged row.
        slack, total = len(self.counts) + 1, max(1, self.total)
        low, high = (begin - slack) / total, (end + slack) / total
        before, streams, numbers, times = 0, [], [], []
        for stream, count in enumerate(self.counts):
            first, last = self._before(stream, count, low), self._before(stream, count, high)
            before += first
            streams.append(np.full(last - first, stream))
            numbers.append(np.arange(first, last))
            times.append(self._times(stream, count, numbers[-1]))
        order = np.lexsort((np.concatenate(streams), np.concatenate(times)))
        order = order[begin - before : end - before]
        return np.concatenate(streams)[order], np.concatenate(numbers)[order]

    def _times(self, stream: int, count: int, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return (numbers + fractions(keyed(self.key, stream, numbers))) / max(1, count)

    def _before(self, stream: int, count: int, time: float) -> int:
        """Count the rows of a stream that come before a time."""
        near = max(0, min(count, int(np.floor(time * count)) - 1))
        numbers = np.arange(near, min(count, near + 4))
        return near + int((self._times(stream, count, numbers) < time).sum())
