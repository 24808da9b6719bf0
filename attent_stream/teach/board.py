"""The board: shared memory in which a rank publishes to its loader workers what to read next.

Two slots are enough. Segment ``k + 2`` is chosen from candidates in segment ``k + 1``, and a
DataLoader hands batches out in order, so every step of segment ``k`` has been read by then. A late
worker that had no step in ``k`` (few steps, many workers) may find ``k + 2`` in its place, and goes
on. The memory has no name: it is a shared torch tensor, which workers get by fork or spawn. It is
freed when the last process that maps it ends, however it ends.
"""

import time
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import MOST as MOST_NOTES
from attent_stream.arrange.cutting import MOST as MOST_PIECES
from attent_stream.base.errors import TeacherError
from attent_stream.base.watch import here, parent_gone

_GENERATION, _CLOSED, _PUBLISHED, _TAUGHT, _TEXT, _VIEW, _HEADER = 0, 1, 2, 3, 4, 5, 6
_KNOWN = 62  # generations whose epoch is known, and whether they are taught
_META = 6 + 2 * MOST_NOTES  # numbers before a posting's arrays
_CRC = _META - 1
_LONGEST = 1 << 14  # bytes of the arrangements' settings


@dataclass(frozen=True, kw_only=True)
class Posting:
    """What one rank's workers read of one segment.

    Args:
        first_step: Number of the first step, counted through the epoch.
        ids: Sample ids of each step, int64 of shape (steps, width); a short step is filled up with
            -1. Where lessons are pieces: ``id * units + piece`` in lesson steps.
        roles: ``LESSON`` or ``CANDIDATE`` of each step, int64 of shape (steps,).
        lesson_notes: Note of each arrangement of ``Board.arrangements`` for the lesson steps.
        candidate_notes: The same for the candidate steps.
        scored: Whether candidates are scored. If not, only their features are needed.
        last: Whether the epoch ends with this segment.
        ahead: Sample ids that will be needed after this segment, int64 of shape (n,), so that
            their shards are fetched in time.
    """

    first_step: int
    ids: NDArray[np.int64]
    roles: NDArray[np.int64]
    lesson_notes: tuple[int, ...]
    candidate_notes: tuple[int, ...]
    scored: bool
    last: bool
    ahead: NDArray[np.int64]


class Board:
    """Postings from one writer (a rank's main process) to many readers (its loader workers).

    Args:
        steps: Largest number of steps in a posting.
        batch_size: Samples of a step.
        ahead: Largest number of ids in ``Posting.ahead``.
    """

    def __init__(self, *, steps: int, batch_size: int, ahead: int) -> None:
        self.steps, self.batch_size, self.ahead = steps, batch_size, ahead
        self._slot = _META + steps * (batch_size * MOST_PIECES + 1) + ahead
        self._memory = torch.zeros(_HEADER + 2 * self._slot, dtype=torch.int64).share_memory_()
        self._epochs = torch.zeros(_KNOWN, dtype=torch.int64).share_memory_()
        self._text = torch.zeros(_LONGEST, dtype=torch.uint8).share_memory_()

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        return (self._memory.numel() + self._epochs.numel()) * 8 + self._text.numel()

    @property
    def generation(self) -> int:
        """Number of the latest iteration over the loader, from 1."""
        return int(self._memory[_GENERATION])

    @property
    def arrangements(self) -> str:
        """The arrangements of the current iteration, as ``Arrangements.dump`` writes them."""
        return bytes(self._text[: int(self._memory[_TEXT])].tolist()).decode()

    @property
    def view(self) -> str:
        """Name of what candidates of the current iteration are scored by, empty for batches."""
        begin = int(self._memory[_TEXT])
        return bytes(self._text[begin : begin + int(self._memory[_VIEW])].tolist()).decode()

    def begin(self, taught: bool, epoch: int = 0) -> int:
        """Start an iteration; readers of earlier ones stop.

        Args:
            taught: Whether it is of a taught epoch.
            epoch: Number of the epoch.

        Returns:
            The iteration's generation.
        """
        words = self._memory.numpy()
        generation = words[_GENERATION] + 1
        bit = 1 << (generation % _KNOWN)
        words[_TAUGHT] = (words[_TAUGHT] & ~bit) | (bit if taught else 0)
        self._epochs[generation % _KNOWN] = epoch
        words[_PUBLISHED] = 0
        words[_GENERATION] = generation
        return int(generation)

    def tell(self, arrangements: str, view: str) -> None:
        """Tell readers the arrangements and the view, before the first segment is published.

        Raises:
            ValueError: They are too long.
        """
        data = arrangements.encode() + view.encode()
        if len(data) > _LONGEST:
            raise ValueError(f"arrange takes at most {_LONGEST} bytes as JSON, got {len(data)}")
        self._text[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self._memory[_TEXT] = len(arrangements.encode())
        self._memory[_VIEW] = len(view.encode())

    def cancel(self, generation: int) -> None:
        """Take back the latest iteration, of which no reader was told."""
        words = self._memory.numpy()
        if words[_GENERATION] == generation:
            words[_GENERATION] = generation - 1

    def end(self, generation: int) -> None:
        """End that iteration and those before. Their readers stop, also those that wait."""
        words = self._memory.numpy()
        words[_CLOSED] = max(words[_CLOSED], generation)

    def taught(self, generation: int) -> bool:
        """Whether that iteration is of a taught epoch."""
        return bool(int(self._memory[_TAUGHT]) >> (generation % _KNOWN) & 1)

    def epoch(self, generation: int) -> int:
        """Number of that iteration's epoch."""
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
        count, width = posting.ids.shape
        fits = self._fits(count, width, len(posting.ahead)) and posting.roles.shape == (count,)
        if not fits or max(len(posting.lesson_notes), len(posting.candidate_notes)) > MOST_NOTES:
            raise ValueError(
                f"expected at most {self.steps} steps of {self.batch_size} ids and {self.ahead} "
                f"ids ahead, got ids of shape {posting.ids.shape} and {len(posting.ahead)} ahead"
            )
        slot = self._slot_of(index)
        body = np.concatenate([posting.ids.reshape(-1), posting.roles, posting.ahead])
        slot[_META : _META + len(body)] = body
        slot[:_CRC] = 0
        last = int(posting.last) + 2 * int(posting.scored)
        slot[:5] = posting.first_step, count, last, len(posting.ahead), width
        slot[5 : 5 + len(posting.lesson_notes)] = posting.lesson_notes
        slot[5 + MOST_NOTES : 5 + MOST_NOTES + len(posting.candidate_notes)] = (
            posting.candidate_notes
        )
        slot[_CRC] = _checksum(slot, len(body), words[_GENERATION], index)
        words[_PUBLISHED] = index + 1  # only now: who sees the number sees the posting

    def read(self, generation: int, index: int) -> Posting | None:
        """Segment ``index``, or None while it is not published. Notes are filled up with 0.

        Raises:
            BoardClosed: That iteration is over.
        """
        words = self._memory.numpy()
        if words[_GENERATION] != generation or words[_CLOSED] >= generation:
            raise BoardClosed
        published = int(words[_PUBLISHED])
        if published <= index:
            return None
        if published > index + 2:
            # Overwritten: all of its steps have been handed out, so this reader has none of them.
            none = np.empty(0, np.int64)
            return Posting(
                first_step=0,
                ids=none.reshape(0, self.batch_size),
                roles=none,
                lesson_notes=(),
                candidate_notes=(),
                scored=False,
                last=False,
                ahead=none,
            )
        slot = self._slot_of(index).copy()
        first, count, last, ahead, width = (int(word) for word in slot[:5])
        size = count * (width + 1)
        if not self._fits(count, width, ahead) or slot[_CRC] != _checksum(
            slot, size + ahead, generation, index
        ):
            # The writer's stores are not all visible yet, or a new epoch has begun: look again.
            return None
        body = slot[_META:]
        return Posting(
            first_step=first,
            ids=body[: count * width].reshape(count, width),
            roles=body[count * width : size],
            lesson_notes=tuple(slot[5 : 5 + MOST_NOTES].tolist()),
            candidate_notes=tuple(slot[5 + MOST_NOTES : _CRC].tolist()),
            scored=bool(last & 2),
            last=bool(last & 1),
            ahead=body[size : size + ahead],
        )

    def wait(self, generation: int, index: int, timeout: float) -> Posting:
        """Segment ``index``, as soon as it is published; see ``read``.

        Args:
            timeout: Longest time to wait, in seconds.

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
                    "the teacher did not publish it: the training process is stuck or very slow "
                    "(raise teacher_timeout if it is slow on purpose)"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return posting

    def _fits(self, count: int, width: int, ahead: int) -> bool:
        widest = self.batch_size * MOST_PIECES
        good_width = self.batch_size <= width <= widest
        return 0 <= count <= self.steps and 0 <= ahead <= self.ahead and good_width

    def _slot_of(self, index: int) -> NDArray[np.int64]:
        begin = _HEADER + (index % 2) * self._slot
        return self._memory.numpy()[begin : begin + self._slot]


class BoardClosed(Exception):
    """The epoch that a reader reads is over."""


def _checksum(slot: NDArray[np.int64], size: int, generation: int, index: int) -> int:
    """Checksum of a posting and its number, so that an old posting in the same slot is not taken
    for a new one.
    """
    which = zlib.crc32(np.array([generation, index], np.int64).tobytes())
    head = zlib.crc32(slot[:_CRC].tobytes(), which)
    return zlib.crc32(slot[_META : _META + size].tobytes(), head)
