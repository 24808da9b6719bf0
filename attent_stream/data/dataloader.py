"""``TeachingDataLoader``: one loader for lessons and candidates; the Trainer only sees the
lessons.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from streaming import StreamingDataLoader
from torch.utils.data import DataLoader, default_collate

from attent_stream.arrange.cutting import Packed
from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.errors import CollateError, ScoreError, TeacherError
from attent_stream.base.gather import RankGroup, gather_ranks
from attent_stream.base.watch import WORKER_TIMEOUT, here, next_batch, open_files_named
from attent_stream.data.dataset import EpochStart, TeachingDataset
from attent_stream.data.loader_arguments import check_has_batches, check_loader_arguments
from attent_stream.data.places import places
from attent_stream.data.tagged import Collated
from attent_stream.data.tagged_collate import TaggedCollate
from attent_stream.teach.board import Board
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.lengths import expected_rows, most_rows
from attent_stream.teach.position import Position
from attent_stream.teach.teacher import Teacher, untaught
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED
from attent_stream.window.layout import CANDIDATE

_GLANCE = 8  # samples

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A candidate batch that waits to be scored: its row within the next window, the batch as
    collated, and its features.
    """

    row: int
    batch: Any
    features: NDArray[np.float16] | None
    fault: str = ""


class TeachingDataLoader(StreamingDataLoader):
    """A StreamingDataLoader that a teacher can be attached to.

    Without a teacher it yields what StreamingDataLoader does. With one, it yields the lessons;
    candidates go to the inbox and are scored by :meth:`teach`, which must be called once for every
    batch yielded (AtteNT does it).

    Args:
        dataset: What to read.
        batch_size: Samples per rank and batch; must be the data set's own.
        collate_fn: Any collate function; it never sees anything but samples, and with a teacher
            must make a row of each. It, or what it wraps, is told the epoch where it has
            ``set_epoch``. What it draws from the global generators of torch, numpy and Python
            depends on the data set's ``shuffle_seed``, the epoch and the batch's samples alone;
            training's own random numbers are left as they are.
        teacher_timeout: Seconds that a worker waits for a window to be chosen before it raises.
        **kwargs: torch DataLoader's; ``timeout`` (seconds to wait for a batch of the workers) is an
            hour if it is not given.

    Raises:
        TypeError: The data set is no TeachingDataset, or an argument of another wrong type.
        ValueError: ``batch_size`` differs from the data set's, an argument cannot work here, or an
            epoch has no batch.
    """

    # StreamingDataLoader's destructor reads it, also when the constructor has refused its arguments
    _iterator = None

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
                f"batch_size must be the data set's own ({dataset.batch_size}), got {batch_size}: "
                "pass the same "
                f"batch_size to TeachingDataset and TeachingDataLoader"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(
                f"batch_size must be a positive integer, for data set and loader alike, got "
                f"{batch_size!r}"
            )
        if not isinstance(teacher_timeout, Real) or not teacher_timeout > 0:
            raise ValueError(
                f"teacher_timeout must be a positive number of seconds, got {teacher_timeout!r}"
            )
        check_loader_arguments(kwargs | {"collate_fn": collate_fn})
        drop_last = bool(kwargs.get("drop_last", False))
        check_has_batches(len(dataset), batch_size, drop_last, dataset.num_ranks)
        if kwargs.get("num_workers", 0) > 0:
            kwargs.setdefault("timeout", WORKER_TIMEOUT)
        collate = collate_fn if collate_fn is not None else default_collate
        super().__init__(
            dataset, batch_size=batch_size, collate_fn=TaggedCollate(collate, dataset), **kwargs
        )
        self._collate: Callable[[list], Any] = collate
        self.teacher: Teacher | None = None
        self.inbox: list[Candidate] = []
        self.epoch: TaughtEpoch | None = None
        self.fault: str = ""  # why the rows of the lesson batch handed out last are not its samples
        self._strict: bool = True
        self._told: bool = False
        self._board: Board = Board(
            steps=2 * dataset.window, batch_size=batch_size, ahead=2 * dataset.window * batch_size
        )
        self._teacher_timeout: float = teacher_timeout
        self._begun: Callable[[], None] | None = None
        self._at_most: int | None = None
        self._length: int = self.plain_batches
        # Epoch of the first iteration that was left early with no teacher
        self._peeked: int | None = None

    @property
    def peeked(self) -> bool:
        """Whether somebody has looked at some batches since a teacher was here."""
        return self._peeked is not None

    def forget_peeks(self) -> None:
        """Start with the epoch that was next before anybody looked at some batches, in a
        new run.
        """
        if self._peeked is not None:
            self.dataset.next_epoch = self._peeked
        self._peeked = None

    def glance(self) -> Any:
        """A batch of a few samples, collated, for what a run must know before its first batch.

        They are always the first samples, so that every rank and every resume sees the same. Random
        numbers stay as they were.
        """
        with random_numbers_kept():
            return self._collate(
                [self.dataset[index] for index in range(min(_GLANCE, self.dataset.num_samples))]
            )

    def attach(
        self,
        teacher: Teacher | None,
        begun: Callable[[], None] | None = None,
        at_most: int | None = None,
        strict: bool = True,
    ) -> None:
        """Let this teacher choose from the next epoch on; None detaches.

        Args:
            teacher: The teacher.
            begun: Called once, when the next iteration has its workers and has not asked them for
                anything.
            at_most: Lesson batches after which the next iteration ends, None for all.
            strict: Whether a batch whose rows are not its samples is an error; else it is trained
                on, neither scored nor weighted, and said once.
        """
        self._strict = strict
        if teacher is not None:
            self._peeked = None
        self.teacher, self._begun, self._at_most = teacher, begun, at_most
        self.forecast()

    @property
    def packed(self) -> bool:
        """Whether the collate function says that its samples are text of one length without
        padding.
        """
        return isinstance(self._collate, Packed) and self._collate.packed is True

    def __len__(self) -> int:
        """Batches an epoch; with a teacher, the lessons that its schedule was last forecast to
        leave of one.
        """
        return self._length

    def forecast(self, done: int = 0) -> int:
        """Work out anew how many batches the epoch that comes next will have, and say so as length
        from now on.

        It stays the same within an epoch unless this is called, because a Trainer holds on to it,
        and cuts the epoch off there: it may be too long, but never too short. Where it cannot be
        foreseen it is the length without a teacher.

        Args:
            done: Batches of that epoch that the teacher's clock has counted already (a resume in
                the middle).
        """
        full = len(self.dataset) // self.batch_size
        tail = self.plain_batches - full
        if self.teacher is None or not self.teacher.foreseeable:
            return self.tell_length(self.plain_batches)
        return self.tell_length(
            most_rows(self.teacher, full, self.dataset.window, self.dataset.coming_epoch, done)
            + tail
        )

    def expect(self, epochs: int, done: int = 0, recorded: bool = False) -> int:
        """Batches that the next so many epochs will have together, as far as it can be told; says
        and changes nothing.

        Args:
            epochs: How many.
            done: As of ``forecast``.
            recorded: Whether training forwards fill the teacher's ledger.
        """
        if self.teacher is None or epochs <= 0:
            return epochs * self.plain_batches
        # Samples in every epoch
        same = self.plain_batches * self.dataset.row_size >= 0.9 * self.dataset.num_samples
        again = same and self.teacher.will_remember(recorded)
        full, first = len(self.dataset) // self.batch_size, self.dataset.coming_epoch
        rows = expected_rows(
            self.teacher, full, self.dataset.window, range(first, first + epochs), done, again
        )
        return rows + epochs * (self.plain_batches - full)

    def tell_length(self, batches: int) -> int:
        """Say so many batches as length from now on, and return it."""
        self._length = batches
        return batches

    @property
    def plain_batches(self) -> int:
        """Batches an epoch without a teacher."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch.

        Raises:
            TeacherError: The data set requires a teacher and none is attached, or a window was not
                chosen in time.
            OpenFilesError: A process was out of file descriptors.
        """
        with open_files_named():
            yield from self._batches()

    def _batches(self) -> Iterator[Any]:
        position = self.dataset.coming_position
        teacher = self.teacher
        if teacher is None and self.dataset.require_teacher:
            raise TeacherError(
                "this data set requires a teacher and none is attached: add AtteNT to the "
                "Trainer's algorithms, "
                "or set require_teacher to false for plain streaming"
            )
        if teacher is None and position is not None:
            # What was taught before is gone on from, and all of the rest kept
            teacher = untaught(position.identity["seed"])
        self.epoch = None
        self.dataset.follow(None)
        before = self.dataset.coming_epoch
        begun = None if teacher is None else self.dataset.begin_epoch()
        epoch = begun.order.epoch if begun else self.dataset.coming_epoch
        generation = self.dataset.begin_iteration(
            self._board, teacher is not None, epoch, self._collate, self._teacher_timeout
        )
        taught = None
        if teacher is not None and begun is not None:
            try:
                taught = self._open(teacher, begun, position)
            except ValueError:  # a position of another run: no worker has been told to iterate
                self._board.cancel(generation)
                self.dataset.end_iteration(self._board, generation)
                raise
            self.epoch = taught
            self.dataset.follow(taught)
            if self.teacher is None and taught.units > 1:
                log.warning(
                    "Teaching was taken away in the middle of a window of short pieces: up to two "
                    "windows are trained on as they were "
                    "chosen, each row %d pieces of different samples.",
                    taught.units,
                )
        try:
            yield from self._plain() if taught is None else self._taught(taught)
            self._peeked = None
        except GeneratorExit:
            if self.teacher is None and self._peeked is None:
                self._peeked = before
            raise
        finally:
            # Before the workers are told to stop: some may wait for a segment that will not come
            self._board.end(generation)
            self.dataset.end_iteration(self._board, generation)

    def _open(self, teacher: Teacher, begun: EpochStart, position: Position | None) -> TaughtEpoch:
        return TaughtEpoch(
            begun.order,
            teacher,
            self._board,
            rank=self.dataset.rank,
            window=self.dataset.window,
            gap=self.dataset.gap,
            drop_last=self.drop_last,
            first_row=begun.first_row,
            position=position,
        )

    def _plain(self) -> Iterator[Any]:
        """As StreamingDataLoader's, but that what is drawn while batches are read is not drawn from
        training's numbers.
        """
        self.num_samples_yielded = 0
        batches = DataLoader.__iter__(self)
        while True:
            with self._reading():
                batch = next(batches, batches)
            if batch is batches:
                return
            self.num_samples_yielded += self._get_batch_size(batch)
            yield batch

    def _reading(self) -> AbstractContextManager:
        """Around the reading of a batch: workers have random numbers of their own."""
        return nullcontext() if self.num_workers else random_numbers_kept()

    def _taught(self, epoch: TaughtEpoch) -> Iterator[Any]:
        self.inbox = []
        batches = DataLoader.__iter__(self)
        self._begun, has_begun = None, self._begun
        self._at_most, at_most = None, self._at_most
        if has_begun is not None:
            has_begun()
        return islice(self._lessons(epoch, batches), at_most)

    def _lessons(self, epoch: TaughtEpoch, batches: Iterator[Collated]) -> Iterator[Any]:
        self.num_samples_yielded = 0
        while not epoch.done:
            expected = epoch.expect()
            with self._reading():
                tagged = next_batch(batches, self.timeout)
            if tagged.step != expected:
                raise TeacherError(
                    f"the workers returned step {tagged.step} where step {expected} was due"
                )
            role, index = epoch.advance()
            self._see(tagged.fault)
            if role == CANDIDATE:
                self.inbox.append(Candidate(index, tagged.batch, tagged.features, tagged.fault))
                continue
            self.fault = tagged.fault
            self.num_samples_yielded += len(epoch.lesson[0]) // epoch.units
            if self.teacher is None and epoch.due:
                epoch.choose()  # nobody teaches any more, and everything is kept
            yield tagged.batch

    def _see(self, fault: str) -> None:
        if fault and self._strict:
            raise CollateError(fault)
        if fault and not self._told:
            self._told = True
            log.warning("Training goes on plainly, as %s.", fault)

    def teach(
        self,
        score: Callable[[Any], torch.Tensor],
        to_device: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
    ) -> list[Choice]:
        """Score the candidates in the inbox, and choose the next window when it is due.

        Every rank must call this for every batch, with the same number of candidates in the inbox.

        Args:
            score: Takes a candidate batch, returns its samples' scores, floating point of shape
                (batch_size,).
            to_device: Takes a tensor to where torch.distributed can gather it.

        Returns:
            The choices made since the last call: one when a window was due, and an epoch's first
            with its first batch.
        """
        epoch = self.epoch
        if epoch is None:
            return []
        if self.inbox and epoch.next is not None:
            rows = [candidate.row for candidate in self.inbox]
            if epoch.next.by == SCORED:
                scores = [self._scored(score, epoch, candidate) for candidate in self.inbox]
                epoch.record(rows, self._everyone(scores))
            if epoch.next.features:
                features = [
                    to_device(torch.from_numpy(candidate.features)) for candidate in self.inbox
                ]
                epoch.record_features(rows, self._everyone(features))
            self.inbox = []
        if epoch.due:
            epoch.choose(RankGroup.of_world(to_device))
        return epoch.take_choices()

    def _everyone(self, values: list[torch.Tensor]) -> NDArray:
        """All ranks' values of the candidates in their inboxes, shape (ranks, candidates, ...)."""
        dataset = self.dataset
        return gather_ranks(
            torch.stack(values), ranks=dataset.num_ranks, replication=dataset.replication or 1
        )

    def _scored(
        self, score: Callable[[Any], torch.Tensor], epoch: TaughtEpoch, candidate: Candidate
    ) -> torch.Tensor:
        try:
            return score(candidate.batch).float()
        except ScoreError as error:
            where = places(self.dataset, epoch.segment.candidates[candidate.row])
            raise ScoreError(f"{error}; on {here()} for {where}") from error
