"""Shards fetched ahead of the samples that need them, by one thread a reader.

Streaming runs two threads a worker that lock the cache once for every sample; most of the time a sample costs there is
theirs. Looking at the shard states first, a block of samples at a time, and locking only for shards that are not here
leaves the same downloads, ahead by the same ``predownload``.
"""

import threading

import numpy as np
from numpy.typing import NDArray
from streaming.base.dataset import _ShardState

_BLOCK = 256


class ShardFetcher:
    """Prepares the shards of coming samples in the background.

    Args:
        dataset: The StreamingDataset that is read.
        predownload: How many samples to be ahead of the reader at most.
    """

    def __init__(self, dataset, predownload: int) -> None:
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
        """Say that the next ``count`` of them are being read now.

        Raises:
            Exception: What went wrong in the background, if anything did.
        """
        with self._turn:
            self._read += count
            self._turn.notify()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop the thread after the shard it is at."""
        with self._turn:
            self._closed = True
            self._turn.notify()

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
        starts = data.sample_offset_per_shard
        try:
            while (block := self._next_block()) is not None:
                shards = np.searchsorted(starts, block, side="right") - 1
                states = data._shard_states.numpy()
                absent = (states[shards] != _ShardState.LOCAL) | ~self._touched[shards]
                for shard in dict.fromkeys(shards[absent].tolist()):
                    data.prepare_shard(shard, False)
                    self._touched[shard] = True
        except BaseException as error:  # raised in the reader, at its next sample
            self._error = error
