"""An epoch's order computed as it is read, from the seed, the epoch and the row numbers.

How often each stream and shard is read, how samples are partitioned over nodes and ranks, and how
batches are formed are the same as in Streaming. The sample at each position is another draw of the
same kind of shuffle (see ``lazy_samples.py``).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset

from attent_stream.order.lazy_rows import BATCHING, Rows
from attent_stream.order.order import LAZY, check_window
from attent_stream.window.layout import Layout, canonical_slots, rank_slots


@dataclass(frozen=True, kw_only=True)
class LazyOrder:
    """One epoch's order, computed as it is read; see ``Order``.

    Args:
        epoch: The epoch's number.
        rows: The rows of the data set's batching method.
        layout: The current layout of slots.
        origin: The layout in which the rows are made.
        stream_starts: First sample id of each stream, shape (num_streams,).
    """

    epoch: int
    rows: Rows
    layout: Layout
    origin: Layout
    stream_starts: NDArray[np.int64]
    kind = LAZY

    @cached_property
    def _recent(self) -> Callable[[int, int], NDArray[np.int64]]:
        # A window is used several times: to read ahead, to read candidates and to choose.
        return lru_cache(maxsize=4)(self._window)

    @property
    def full(self) -> int:
        """See ``Order``."""
        return self.rows.full

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """See ``Order``; the array is read-only."""
        check_window(self, begin, end)
        return self._recent(begin, end)

    def _window(self, begin: int, end: int) -> NDArray[np.int64]:
        ids = self.rows.between(begin, end)
        ids.flags.writeable = False
        return ids

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """See ``Order``."""
        return ids[:, rank_slots(self.layout, self.origin, rank)]

    def rows_of_rank(self, numbers: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
        """Compute only the ids that ``rank`` reads of some full rows.

        Args:
            numbers: Row numbers, ascending.
            rank: Which rank.

        Returns:
            int64 of shape (len(numbers), batch_size).
        """
        return self.rows.some(numbers, rank_slots(self.layout, self.origin, rank))

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """See ``Order``."""
        rest = self.rows.between(self.full, self.rows.total)[:, canonical_slots(self.origin)]
        rest = rest.reshape(len(rest), self.layout.ranks, self.layout.batch_size)[:, rank]
        return [row[row >= 0] for row in rest if (row >= 0).any()]


def lazy_order(dataset: StreamingDataset, now: Layout, origin: Layout, epoch: int) -> LazyOrder:
    """Make a data set's order for an epoch.

    Args:
        dataset: A data set whose canonical nodes and block size are set.
        now: The current layout of slots.
        origin: The layout in which Streaming would make the rows.
        epoch: The epoch's number.

    Raises:
        ValueError: Streaming refuses the settings too.
    """
    rows = BATCHING[dataset.batching_method](dataset, origin, epoch)
    starts = np.asarray(dataset.sample_offset_per_stream, np.int64)
    return LazyOrder(epoch=epoch, rows=rows, layout=now, origin=origin, stream_starts=starts)


def lazy_steps(
    order: LazyOrder, rank: int, first_row: int, worker: int, workers: int, read_ahead: int = 2048
) -> Iterator[tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]]:
    """Iterate over what a worker reads of an epoch without a teacher.

    A DataLoader asks its workers round-robin, so a worker has every ``workers``-th batch, counted
    from ``first_row``.

    Yields:
        The batches of the next ``read_ahead`` samples of all workers, and the batches after them.
    """

    def stretches() -> Iterator[list[NDArray[np.int64]]]:
        span = workers * max(1, read_ahead // order.layout.batch_size)
        for begin in range(first_row, order.full, span):
            numbers = np.arange(begin + worker, min(begin + span, order.full), workers)
            yield list(order.rows_of_rank(numbers, rank))
        if first_row <= order.full:
            steps = enumerate(order.tail(rank), order.full - first_row)
            yield [ids for step, ids in steps if step % workers == worker]

    upcoming = stretches()
    now = next(upcoming, None)
    while now is not None:
        ahead = next(upcoming, None)
        if now:
            yield now, ahead or []
        now = ahead
