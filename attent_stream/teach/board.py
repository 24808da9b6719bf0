"""The board: shared memory in which a rank publishes to its loader workers what to read next.

Two slots are enough: segment ``k + 2`` is chosen from candidates that stand in segment ``k + 1``,
and a DataLoader hands batches out in order, so every step of segment ``k`` has been read by then. A
worker that is late and had no step in ``k`` (few steps, many workers) may find ``k + 2`` in its
place, and goes on. The memory has no name: it is a shared torch tensor, passed on to workers by
fork or spawn, and goes when the last process that maps it goes, however it ends.
"""

import time
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.arrange.pieces import MOST
from attent_stream.base.errors import TeacherError
from attent_stream.base.watch import here, parent_gone

_GENERATION, _CLOSED, _PUBLISHED, _TAUGHT, _HEADER = 0, 1, 2, 3, 4
_KNOWN = 62  # generations of which the board knows the epoch, and whether they are taught
_STEP, _COUNT, _LAST, _AHEAD, _WIDTH, _CRC, _META = 0, 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, kw_only=True)
class Posting:
    """What one rank's workers read of one segment.

    Args:
        first_step: Number of the first step, counted through the epoch.
        ids: Sample ids of each step, int64 of shape (steps, width); a short step is filled up with
            -1. Of a step of several pieces a sample's id * pieces + which piece, batch_size *
            pieces of them.
        pieces: Of each step, into how many its samples are cut, int64 of shape (steps,).
        wants: What is wanted of each step's batch, int64 of shape (steps,): 0 the batch, else see
            ``features.wanted``.
        last: Whether the epoch ends with it.
        ahead: Sample ids that will be wanted after this segment, int64 of shape (n,): shards to
            fetch in time.
    """

    first_step: int
    ids: NDArray[np.int64]
    pieces: NDArray[np.int64]
    wants: NDArray[np.int64]
    last: bool
    ahead: NDArray[np.int64]


class Board:
    """Postings from one writer (a rank's main process) to many readers (its loader workers).

    Args:
        steps: Most steps a posting may have.
        batch_size: Samples a step.
        ahead: Most ids of ``Posting.ahead``.
    """

    def __init__(self, *, steps: int, batch_size: int, ahead: int) -> None:
        self.steps, self.batch_size, self.ahead = steps, batch_size, ahead
        self._slot = _META + steps * (batch_size * MOST + 2) + ahead
        self._memory = torch.zeros(_HEADER + 2 * self._slot, dtype=torch.int64).share_memory_()
        self._epochs = torch.zeros(_KNOWN, dtype=torch.int64).share_memory_()

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        return (self._memory.numel() + self._epochs.numel()) * 8

    @property
    def generation(self) -> int:
        """Number of the latest iteration over the loader, from 1."""
        return int(self._memory[_GENERATION])

    def begin(self, taught: bool, epoch: int = 0) -> int:
        """Start an iteration, and return its generation; readers of earlier ones stop.

        Args:
            taught: Whether it is of a taught epoch.
            epoch: The epoch's number.
        """
        words = self._memory.numpy()
        generation = words[_GENERATION] + 1
        bit = 1 << (generation % _KNOWN)
        words[_TAUGHT] = (words[_TAUGHT] & ~bit) | (bit if taught else 0)
        self._epochs[generation % _KNOWN] = epoch
        words[_PUBLISHED] = 0
        words[_GENERATION] = generation
        return int(generation)

    def cancel(self, generation: int) -> None:
        """Take back the iteration begun last, of which no reader was told."""
        words = self._memory.numpy()
        if words[_GENERATION] == generation:
            words[_GENERATION] = generation - 1

    def end(self, generation: int) -> None:
        """End that iteration and those before: their readers stop, also those that wait."""
        words = self._memory.numpy()
        words[_CLOSED] = max(words[_CLOSED], generation)

    def taught(self, generation: int) -> bool:
        """Whether that iteration is a taught one."""
        return bool(int(self._memory[_TAUGHT]) >> (generation % _KNOWN) & 1)

    def epoch(self, generation: int) -> int:
        """Number of the epoch that iteration is of."""
        return int(self._epochs[generation % _KNOWN])

    def publish(self, index: int, posting: Posting) -> None:
        """Publish segment ``index`` (0, 1, 2, ... within an epoch).

        Raises:
            ValueError: The posting does not fit, or is not the next one.
        """
        words = self._memory.numpy()
        if index != words[_PUBLISHED]:
            raise ValueError(
                f"expected segment {words[_PUBLISHED]} to be published next, got {index}"
            )
        count = len(posting.ids)
        width = posting.ids.shape[1]
        fits = width in range(
            self.batch_size, self.batch_size * MOST + 1
        ) and posting.wants.shape == posting.pieces.shape == (count,)
        if count > self.steps or not fits or len(posting.ahead) > self.ahead:
            raise ValueError(
                f"expected at most {self.steps} steps of {self.batch_size} ids and {self.ahead} "
                "ids ahead, got ids of "
                f"shape {posting.ids.shape} and {len(posting.ahead)} ahead"
            )
        slot = self._slot_of(index)
        body = np.concatenate(
            [posting.ids.reshape(-1), posting.pieces, posting.wants, posting.ahead]
        )
        slot[_META : _META + len(body)] = body
        slot[:_CRC] = posting.first_step, count, posting.last, len(posting.ahead), width
        slot[_CRC] = _checksum(slot, len(body), words[_GENERATION], index)
        words[_PUBLISHED] = index + 1  # only now: a reader that sees the number sees the posting

    def read(self, generation: int, index: int) -> Posting | None:
        """Segment ``index``, or None while it is not published.

        Raises:
            BoardClosed: The iteration ``generation`` is over.
        """
        words = self._memory.numpy()
        if words[_GENERATION] != generation or words[_CLOSED] >= generation:
            raise BoardClosed
        published = int(words[_PUBLISHED])
        if published <= index:
            return None
        # Overwritten: all of its steps have been handed out, so this reader has none of them
        if published > index + 2:
            none = np.empty(0, np.int64)
            return Posting(
                first_step=0,
                ids=none.reshape(0, self.batch_size),
                pieces=none,
                wants=none,
                last=False,
                ahead=none,
            )
        slot = self._slot_of(index).copy()
        first, count, last, ahead, width = (int(word) for word in slot[:_CRC])
        size = count * (width + 2)
        if not (
            0 <= count <= self.steps
            and 0 <= ahead <= self.ahead
            and 0 < width <= self.batch_size * MOST
        ) or slot[_CRC] != _checksum(slot, size + ahead, generation, index):
            # The writer's stores are not all visible yet, or a new epoch has begun: look again
            return None
        body = slot[_META:]
        ids, pieces, wants = np.split(body[:size], [count * width, count * (width + 1)])
        ids = ids.reshape(count, width)
        return Posting(
            first_step=first,
            ids=ids,
            pieces=pieces,
            wants=wants,
            last=bool(last),
            ahead=body[size : size + ahead],
        )

    def wait(self, generation: int, index: int, timeout: float) -> Posting:
        """Segment ``index``, as soon as it is published.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            BoardClosed: The epoch is over, or the process that publishes has gone.
            TeacherError: Nothing was published in ``timeout`` seconds.
        """
        pause, start = 0.0005, time.monotonic()
        while (posting := self.read(generation, index)) is None:
            if parent_gone():
                raise BoardClosed
            if time.monotonic() - start > timeout:
                raise TeacherError(
                    f"a loader worker of {here()} waited {timeout:.0f} s for segment {index} and "
                    "the teacher did not publish "
                    "it: the training process is stuck or very slow (raise teacher_timeout if it "
                    "is slow on purpose)"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return posting

    def _slot_of(self, index: int) -> NDArray[np.int64]:
        begin = _HEADER + (index % 2) * self._slot
        return self._memory.numpy()[begin : begin + self._slot]


class BoardClosed(Exception):
    """The epoch that a reader reads is over."""


def _checksum(slot: NDArray[np.int64], size: int, generation: int, index: int) -> int:
    """Of a posting and of which it is, so that a slot's last posting is not taken for a new one
    whose stores are late.
    """
    which = zlib.crc32(np.array([generation, index], np.int64).tobytes())
    return zlib.crc32(
        slot[_META : _META + size].tobytes(), zlib.crc32(slot[:_CRC].tobytes(), which)
    )
