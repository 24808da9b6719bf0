"""Shards fetched ahead of the samples that need them, by one thread a reader.

Streaming runs two threads a worker that lock the cache once for every sample; most of the time a
sample costs there is theirs. Looking at the shard states first, a block of samples at a time, and
locking only for shards that are not here leaves the same downloads, ahead by the same
``predownload``.
"""

import threading

import numpy as np
from numpy.typing import NDArray
from streaming.base.dataset import _ShardState
from torch.utils.data import get_worker_info

from attent_stream.store import fetch

_BLOCK = 256
_GRACE = 1.0  # seconds in which a thread without a fetch under way has ended


class ShardFetcher:
    """Prepares the shards of coming samples in the background, each at the latest before its first
    sample is read.

    Args:
        dataset: The StreamingDataset that is read.
        predownload: How many samples to be ahead of the reader at most.
    """

    def __init__(self, dataset, predownload: int) -> None:
        for stream in dataset.streams:
            # A forked worker has its parent's connections; two workers on one of them read each
            # other's answers.
            fetch.reconnect(stream)
        self._dataset = dataset
        self._predownload = predownload
        self._turn = threading.Condition()
        self._coming: NDArray[np.int64] = np.empty(0, np.int64)
        self._read = self._looked = 0
        self._closed = False
        self._error: BaseException | None = None
        self._touched = np.zeros(dataset.num_shards, bool)
        self._thread = threading.Thread(target=self._run, name="attent-shards", daemon=True)
        self._thread.start()

    def expect(self, ids: NDArray[np.int64]) -> None:
        """Say which samples come next, in order, shape (n,); replaces what was said before."""
        with self._turn:
            self._coming, self._read, self._looked = ids, 0, 0
            self._turn.notify()

    def advance(self, count: int) -> None:
        """Say that the next ``count`` of them are being read now; their shards have been prepared
        once when this returns.

        Raises:
            Exception: What went wrong in the background, if anything did, or in preparing one of
                these shards.
        """
        with self._turn:
            ids = self._coming[self._read : self._read + count]
            self._read += count
            self._turn.notify()
        if self._error is not None:
            raise self._error
        # A file that was in the cache from the start may be cut: it is not to be read before it was
        # looked at.
        shards = self._shards_of(ids)
        self._prepare(shards[~self._touched[shards]], True)

    def close(self) -> None:
        """Stop the thread after the shard it is at.

        In a loader's worker, which may end now, also wait for it: a shard that is left claimed and
        not fetched would keep everybody on the node who needs it waiting until the claim is too
        old. Elsewhere wait for a moment: the thread holds the data set, whose memory is closed only
        after it has ended.
        """
        with self._turn:
            self._closed = True
            self._turn.notify()
        if self._thread is threading.current_thread():
            return  # it is collecting the reader
        # A fetch ends in bounded time.
        self._thread.join(None if get_worker_info() is not None else _GRACE)

    def _next_block(self) -> NDArray[np.int64] | None:
        with self._turn:
            while True:
                if self._closed:
                    return None
                end = min(len(self._coming), self._read + self._predownload, self._looked + _BLOCK)
                if end > self._looked:
                    block = self._coming[self._looked : end]
                    self._looked = end
                    return block
                self._turn.wait()

    def _run(self) -> None:
        data = self._dataset
        try:
            while (block := self._next_block()) is not None:
                shards = self._shards_of(block)
                # A copy: this thread may be the last to hold the data set and its memory.
                states = data._shard_states[shards]
                self._prepare(shards[(states != _ShardState.LOCAL) | ~self._touched[shards]], False)
        except BaseException as error:  # raised in the reader, at its next sample
            self._error = error

    def _shards_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._dataset.sample_offset_per_shard, ids, side="right") - 1

    def _prepare(self, shards: NDArray[np.int64], blocking: bool) -> None:
        # One that another process prepares now counts as looked at: who claims a cut file removes
        # it first.
        for shard in dict.fromkeys(shards.tolist()):
            if self._closed:
                return
            self._dataset.prepare_shard(shard, blocking)
            self._touched[shard] = True
