"""Fetch shards ahead of the samples that need them, in one thread for each reader.

Streaming has two threads for each worker that lock the cache for every sample, which is most of a
sample's cost. Here the reader looks at the shard states of some samples at a time without the lock.
It hands missing shards to the thread, which locks for them. Nothing wakes the thread otherwise, as
that would hold up the reader. Downloads and ``predownload`` stay the same.
"""

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset
from streaming.base.dataset import _ShardState
from torch.utils.data import get_worker_info

from attent_stream.store import fetch

_STRIDE = 256  # most samples that the reader looks at after those it looked at before
_GRACE = 1.0  # seconds in which a thread that is not fetching ends


class ShardFetcher:
    """Prepares the shards of upcoming samples in a background thread.

    Args:
        dataset: The StreamingDataset that is read.
        predownload: Most samples to be ahead of the reader.
    """

    def __init__(self, dataset: StreamingDataset, predownload: int) -> None:
        for stream in dataset.streams:
            # Forked workers share their parent's connection, and would read each other's answers.
            fetch.reconnect(stream)
        self._dataset = dataset
        self._predownload = predownload
        self._stride = min(_STRIDE, max(1, predownload // 4))
        self._upcoming: NDArray[np.int64] = np.empty(0, np.int64)
        self._read = self._looked = 0
        self._changed = threading.Condition()
        self._wanted: dict[int, None] = {}  # shards for the thread to prepare, in order
        self._closed = False
        self._error: BaseException | None = None
        self._touched = np.zeros(dataset.num_shards, bool)
        self._thread = threading.Thread(target=self._run, name="attent-shards", daemon=True)
        self._thread.start()

    def expect(self, ids: NDArray[np.int64]) -> None:
        """Set the ids of the samples to read next, in order, shape (n,)."""
        self._upcoming, self._read, self._looked = ids, 0, 0
        with self._changed:
            self._wanted.clear()
        self._look()

    def advance(self, count: int) -> None:
        """Announce that the next ``count`` samples are read now, and wait for their shards.

        Raises:
            Exception: A shard could not be prepared, here or in the background.
        """
        ids = self._upcoming[self._read : self._read + count]
        self._read += count
        self._look()
        if self._error is not None:
            raise self._error
        # A file that was in the cache from the start may be truncated: prepare each shard once.
        shards = self._shards_of(ids)
        self._prepare(dict.fromkeys(shards[~self._touched[shards]].tolist()), True)

    def close(self) -> None:
        """Stop the thread after its current shard.

        In a loader worker, which may end now, wait for the thread: other processes would wait for
        a claimed shard until the claim expires. Elsewhere wait a moment, because the data set's
        memory is closed only after the thread has ended.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is threading.current_thread():
            return  # the thread is garbage collecting the reader
        # A fetch ends in bounded time.
        self._thread.join(None if get_worker_info() is not None else _GRACE)

    def _look(self) -> None:
        """Hand the shards of more samples to the thread, if there are enough, or the last ones."""
        end = min(len(self._upcoming), self._read + self._predownload)
        new = end - self._looked
        if new < self._stride and not (new > 0 and end == len(self._upcoming)):
            return
        shards = self._shards_of(self._upcoming[self._looked : end])
        self._looked = end
        missing = self._missing(shards)
        if missing:
            with self._changed:
                self._wanted.update(missing)
                self._changed.notify()

    def _missing(self, shards: NDArray[np.int64]) -> dict[int, None]:
        """The shards that are not here, or were never looked into, in order."""
        here = self._dataset._shard_states[shards] == _ShardState.LOCAL
        return dict.fromkeys(shards[~(here & self._touched[shards])].tolist())

    def _next(self) -> int | None:
        """The next shard to prepare, when there is one; None when closed."""
        with self._changed:
            while not self._closed and not self._wanted:
                self._changed.wait()
            if self._closed:
                return None
            shard = next(iter(self._wanted))
            del self._wanted[shard]
            return shard

    def _run(self) -> None:
        try:
            while (shard := self._next()) is not None:
                # It may have been asked for again while it was prepared.
                self._prepare(self._missing(np.array([shard])), False)
        except BaseException as error:  # raised in the reader by ``advance``
            self._error = error

    def _shards_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._dataset.sample_offset_per_shard, ids, side="right") - 1

    def _prepare(self, shards: Iterable[int], blocking: bool) -> None:
        # A shard that another process prepares counts too: that process removes a truncated file.
        for shard in shards:
            if self._closed:
                return
            self._dataset.prepare_shard(shard, blocking)
            self._touched[shard] = True
