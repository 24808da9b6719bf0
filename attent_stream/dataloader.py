"""``TeachingDataLoader``: one loader for lessons and candidates; the Trainer only sees the lessons."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from streaming import StreamingDataLoader
from torch.utils.data import DataLoader, default_collate

from attent_stream.board import Board
from attent_stream.dataset import Tagged, TeachingDataset
from attent_stream.epoch import TaughtEpoch
from attent_stream.epoch_number import VariesByEpoch
from attent_stream.errors import TeacherError
from attent_stream.gather import gather_ranks
from attent_stream.plan import CANDIDATE, lesson_count, window_rows
from attent_stream.teacher import Choice, Teacher


class Candidate(NamedTuple):
    """A candidate batch that waits to be scored: its row within the next window, and the batch as collated."""

    row: int
    batch: Any


class TaggedCollate:
    """The user's collate function, with the step number carried around it."""

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list) -> Any:
        if isinstance(samples[0], Tagged):
            return Tagged(samples[0].step, self.collate([sample.value for sample in samples]))
        return self.collate(samples)


class TeachingDataLoader(StreamingDataLoader):
    """A StreamingDataLoader that a teacher can be attached to.

    Without a teacher it yields what StreamingDataLoader does. With one, it yields the lessons; candidates go to the inbox
    and are scored by :meth:`teach`, which must be called once for every batch yielded (AtteNT does it).

    Args:
        dataset: What to read.
        batch_size: Samples per rank and batch; must be the data set's own.
        collate_fn: Any collate function; it never sees anything but samples. One that has ``set_epoch`` is told the epoch.
        teacher_timeout: Seconds that a worker waits for a window to be chosen before it raises.
        **kwargs: torch DataLoader's.

    Raises:
        TypeError: The data set is no TeachingDataset.
        ValueError: ``batch_size`` differs from the data set's.
    """

    _iterator = None  # StreamingDataLoader's destructor reads it, also when the constructor has refused its arguments

    def __init__(
        self,
        dataset: TeachingDataset,
        *,
        batch_size: int,
        collate_fn: Callable[[list], Any] | None = None,
        teacher_timeout: float = 3600.0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(dataset, TeachingDataset):
            raise TypeError(f"dataset must be a TeachingDataset, got {type(dataset).__name__}")
        if batch_size != dataset.batch_size:
            raise ValueError(
                f"batch_size must be the data set's own ({dataset.batch_size}), got {batch_size}: pass the same "
                f"batch_size to TeachingDataset and TeachingDataLoader"
            )
        if not teacher_timeout > 0:
            raise ValueError(f"teacher_timeout must be a positive number of seconds, got {teacher_timeout!r}")
        collate = collate_fn if collate_fn is not None else default_collate
        super().__init__(dataset, batch_size=batch_size, collate_fn=TaggedCollate(collate), **kwargs)
        self._collate = collate
        self.teacher: Teacher | None = None
        self.inbox: list[Candidate] = []
        self.epoch: TaughtEpoch | None = None
        self._board = Board(steps=2 * dataset.window, batch_size=batch_size, ahead=dataset.window * batch_size)
        dataset.connect(self._board, teacher_timeout)
        self._length = self.plain_batches

    def attach(self, teacher: Teacher | None) -> None:
        """Let this teacher choose from the next epoch on; None detaches."""
        self.teacher = teacher
        self.forecast()

    def __len__(self) -> int:
        """Batches an epoch; with a teacher, the lessons that its schedule was last forecast to leave of one."""
        return self._length

    def forecast(self, done: int = 0) -> int:
        """Work out anew how many batches the epoch that comes next will have, and say so as length from now on.

        It stays the same within an epoch unless this is called, because a Trainer holds on to it.

        Args:
            done: Batches of that epoch that the teacher's clock has counted already (a resume in the middle).
        """
        full = len(self.dataset) // self.batch_size
        tail = self.plain_batches - full
        self._length = self.plain_batches if self.teacher is None else self._taught_rows(full, done) + tail
        return self._length

    @property
    def plain_batches(self) -> int:
        """Batches an epoch without a teacher."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch.

        Raises:
            TeacherError: The data set requires a teacher and none is attached, or a window was not chosen in time.
        """
        if self.teacher is None:
            if self.dataset.require_teacher:
                raise TeacherError(
                    "this data set requires a teacher and none is attached: add AtteNT to the Trainer's algorithms, "
                    "or set require_teacher to false for plain streaming"
                )
            self.epoch = None
            self.dataset.follow(None)
            self._tell_epoch(self.dataset.coming_epoch)
            self.dataset.begin_iteration(taught=False)
            yield from super().__iter__()
            return
        order, first_row, position = self.dataset.begin_epoch()
        self._tell_epoch(order.epoch)
        self.inbox = []
        self.dataset.begin_iteration(taught=True)
        self.epoch = TaughtEpoch(
            order,
            self.teacher,
            self._board,
            rank=self.dataset.rank,
            window=self.dataset.window,
            gap=self.dataset.gap,
            drop_last=self.drop_last,
            first_row=first_row,
            position=position,
        )
        self.dataset.follow(self.epoch)
        batches = DataLoader.__iter__(self)
        try:
            yield from self._lessons(self.epoch, batches)
        finally:
            self._board.end()  # before the workers are told to stop: some may wait for a segment that will not come

    def _lessons(self, epoch: TaughtEpoch, batches: Iterator[Tagged]) -> Iterator[Any]:
        self.num_samples_yielded = 0
        while not epoch.done:
            expected = epoch.expect()
            tagged = next(batches)
            if tagged.step != expected:
                raise TeacherError(f"the workers returned step {tagged.step} where step {expected} was due")
            role, index = epoch.advance()
            if role == CANDIDATE:
                self.inbox.append(Candidate(index, tagged.value))
                continue
            self.num_samples_yielded += len(epoch.lesson[0])
            yield tagged.value

    def teach(self, score: Callable[[Any], torch.Tensor]) -> list[Choice]:
        """Score the candidates in the inbox, and choose the next window when it is due.

        Every rank must call this for every batch, with the same number of candidates in the inbox.

        Args:
            score: Takes a candidate batch, returns its samples' scores, floating point of shape (batch_size,).

        Returns:
            The choices made since the last call: one when a window was due, and an epoch's first with its first batch.
        """
        epoch = self.epoch
        if epoch is None:
            return []
        if self.inbox:
            scores = torch.stack([score(candidate.batch) for candidate in self.inbox]).float()
            rows = [candidate.row for candidate in self.inbox]
            self.inbox = []
            epoch.record(rows, gather_ranks(scores, self.dataset.replication or 1))
        if epoch.due:
            epoch.choose()
        return epoch.take_choices()

    def _tell_epoch(self, epoch: int) -> None:
        if isinstance(self._collate, VariesByEpoch):
            self._collate.set_epoch(epoch)

    def _taught_rows(self, rows: int, done: int) -> int:
        epoch = self.dataset.coming_epoch
        lessons, index = 0, 0
        while True:
            begin, end = window_rows(rows, 0, self.dataset.window, index)
            if begin == end:
                return lessons
            # An epoch that turns out shorter than said only ends early; one that turns out longer would be cut off by
            # the Trainer, so the first window counts as untaught though the ledger may know it.
            untaught = index == 0 and self.teacher.scores
            clock = self.teacher.clock(lessons - done, epoch, begin / rows)
            lessons += end - begin if untaught else lesson_count(end - begin, self.teacher.keep(clock))
            index += 1
