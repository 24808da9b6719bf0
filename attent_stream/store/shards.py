"""Fetch shards ahead of the samples that need them, in one thread for each reader.

Streaming has two threads for each worker that lock the cache for every sample, which is most of a
sample's cost. This thread checks the shard states of a block of samples without the lock, and locks
only for missing shards. Downloads and ``predownload`` stay the same.
"""

import threading

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset
from streaming.base.dataset import _ShardState
from torch.utils.data import get_worker_info

from attent_stream.store import fetch

_BLOCK = 256  # samples checked at a time
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
        self._changed = threading.Condition()
        self._upcoming: NDArray[np.int64] = np.empty(0, np.int64)
        self._read = self._looked = 0
        self._closed = False
        self._error: BaseException | None = None
        self._touched = np.zeros(dataset.num_shards, bool)
        self._thread = threading.Thread(target=self._run, name="attent-shards", daemon=True)
        self._thread.start()

    def expect(self, ids: NDArray[np.int64]) -> None:
        """Set the ids of the samples to read next, in order, shape (n,)."""
        with self._changed:
            self._upcoming, self._read, self._looked = ids, 0, 0
            self._changed.notify()

    def advance(self, count: int) -> None:
        """Announce that the next ``count`` samples are read now, and wait for their shards.

        Raises:
            Exception: A shard could not be prepared, here or in the background.
        """
        with self._changed:
            ids = self._upcoming[self._read : self._read + count]
            self._read += count
            self._changed.notify()
        if self._error is not None:
            raise self._error
        # A file that was in the cache from the start may be truncated: prepare each shard once.
        shards = self._shards_of(ids)
        self._prepare(shards[~self._touched[shards]], True)

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

    def _next_block(self) -> NDArray[np.int64] | None:
        with self._changed:
            while True:
                if self._closed:
                    return None
                end = min(
                    len(self._upcoming), self._read + self._predownload, self._looked + _BLOCK
                )
                if end > self._looked:
                    block = self._upcoming[self._looked : end]
                    self._looked = end
                    return block
                self._changed.wait()

    def _run(self) -> None:
        data = self._dataset
        try:
            while (block := self._next_block()) is not None:
                shards = self._shards_of(block)
                # A copy, because this thread may hold the last reference to the data set.
                states = data._shard_states[shards]
                self._prepare(shards[(states != _ShardState.LOCAL) | ~self._touched[shards]], False)
        except BaseException as error:  # raised in the reader by ``advance``
            self._error = error

    def _shards_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._dataset.sample_offset_per_shard, ids, side="right") - 1

    def _prepare(self, shards: NDArray[np.int64], blocking: bool) -> None:
        # A shard that another process prepares counts too: that process removes a truncated file.
        for shard in dict.fromkeys(shards.tolist()):
            if self._closed:
                return
            self._dataset.prepare_shard(shard, blocking)
            self._touched[shard] = True
