"""``TeachingDataLoader``: reads lessons and candidates, and yields the lessons to the Trainer."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from numbers import Real
from typing import Any

from streaming import StreamingDataLoader
from torch.utils.data import DataLoader, default_collate

from attent_stream.arrange.cutting import Packed, collate_to_cut
from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.errors import CollateError, TeacherError
from attent_stream.base.gather import RankGroup
from attent_stream.base.watch import WORKER_TIMEOUT, next_batch, open_files_named
from attent_stream.data.blocks import Blocks
from attent_stream.data.candidates import Candidate, Score, ToDevice, record_candidates
from attent_stream.data.collated import collated
from attent_stream.data.dataset import WINDOW, EpochStart, TeachingDataset
from attent_stream.data.epoch_length import expected_batches, longest_epoch
from attent_stream.data.loader_arguments import (
    check_batch_size,
    check_has_batches,
    check_loader_arguments,
)
from attent_stream.data.one_block import as_batch
from attent_stream.data.pipe import widen
from attent_stream.data.tagged import Collated
from attent_stream.data.tagged_collate import TaggedCollate
from attent_stream.teach.board import Board
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.position import Position
from attent_stream.teach.teacher import Teacher, untaught
from attent_stream.window.choice import Choice
from attent_stream.window.layout import CANDIDATE

_GLANCE = 8  # samples
_MOST_AHEAD = 16  # batches of candidates that are read ahead: they take memory
_WINDOWS = 4  # windows of an epoch, at least, where their length is not given

log = logging.getLogger(__name__)


class TeachingDataLoader(StreamingDataLoader):
    """A StreamingDataLoader to which a teacher can be attached.

    Without a teacher it yields what StreamingDataLoader does. With one it yields the lessons, and
    keeps the candidates in ``inbox``. ``teach`` scores them. It must be called once for every
    batch yielded, as AtteNT does.

    Args:
        dataset: What to read.
        batch_size: Samples in a rank's batch; must equal the data set's.
        collate_fn: Any collate function. It is called with samples only, and with a teacher must
            return one row for each. If it or what it wraps has ``set_epoch``, it is called before
            each epoch. The global generators that it draws from are seeded for each batch, see
            ``TeachingDataset``; training's random states are kept.
        teacher_timeout: Longest time in seconds that a worker waits for a window to be chosen.
        **kwargs: Arguments of torch's DataLoader. ``timeout`` (seconds to wait for a worker's
            batch) defaults to an hour.

    Raises:
        TypeError: ``dataset`` is not a TeachingDataset, or an argument has the wrong type.
        ValueError: ``batch_size`` differs from the data set's, an argument is not supported, or an
            epoch has no batch.
    """

    # StreamingDataLoader's destructor reads it, even if the constructor raised.
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
        check_batch_size(batch_size, dataset.batch_size)
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
        tagged = TaggedCollate(collate, dataset)
        super().__init__(dataset, batch_size=batch_size, collate_fn=tagged, **kwargs)
        self._tagged: TaggedCollate = tagged
        self._blocks: Blocks | None = None
        self._prefetch: int | None = self.prefetch_factor
        self._collate: Callable[[list], Any] = collate
        self.teacher: Teacher | None = None
        self.inbox: list[Candidate] = []
        self.epoch: TaughtEpoch | None = None
        # Why the last lesson batch does not have one row for each sample, if so.
        self.fault: str = ""
        self._strict: bool = True
        self._told: bool = False
        self._board: Board = _board_of(dataset)
        self._teacher_timeout: float = teacher_timeout
        self._open_iterations: int = 0
        self._begun: Callable[[], None] | None = None
        self._at_most: int | None = None
        self._length: int = self.plain_batches
        # Epoch of the first iteration that ended early without a teacher
        self._peeked: int | None = None

    @property
    def peeked(self) -> bool:
        """Whether an iteration ended early since a teacher was last attached."""
        return self._peeked is not None

    def forget_peeks(self) -> None:
        """Return to the epoch before any iteration that ended early, for a new run."""
        if self._peeked is not None:
            self.dataset.next_epoch = self._peeked
        self._peeked = None

    def glance(self, *, to_cut: bool = False) -> Any:
        """Collate the first samples, to learn about batches before training.

        All ranks and all resumes see the same samples. Random states are kept.

        Args:
            to_cut: Collate them as samples that will be cut into pieces.
        """
        return self.collated(range(min(_GLANCE, self.dataset.num_samples)), to_cut=to_cut)

    @property
    def collate(self) -> Callable[[list], Any]:
        """The user's collate function."""
        return self._collate

    def collated(self, ids: Iterable[int], *, to_cut: bool = False) -> Any:
        """Read and collate some samples. Random states are kept.

        Args:
            ids: Their sample ids.
            to_cut: Collate them as samples that will be cut into pieces.
        """
        collate = collate_to_cut(self._collate) if to_cut else self._collate
        return collated(self.dataset, collate, ids, self.dataset.coming_epoch)

    def attach(
        self,
        teacher: Teacher | None,
        begun: Callable[[], None] | None = None,
        at_most: int | None = None,
        strict: bool = True,
    ) -> None:
        """Attach a teacher from the next epoch on, or detach with None.

        Args:
            teacher: Chooses the lessons.
            begun: Called once in the next iteration, after its workers are started and before they
                are asked for a batch.
            at_most: Lesson batches after which the next iteration ends; None for all.
            strict: Raise an error if a batch does not have one row for each sample. If False, warn
                once, and train on such batches without scores and weights.
        """
        self._strict = strict
        if teacher is not None:
            self._peeked = None
        self._resume_window(self.dataset.coming_position)
        self.teacher, self._begun, self._at_most = teacher, begun, at_most
        self.forecast()

    def widen(self, window: int) -> None:
        """Use windows of another length from the next epoch on, if the user did not give one.

        Nothing changes while an iteration is open. An epoch has at least four windows.

        Args:
            window: Rows of a window. Less than the default is taken for the default.
        """
        dataset = self.dataset
        rows = max(WINDOW, min(window, self.plain_batches // _WINDOWS))
        if dataset.window_given or rows == dataset.window or self._open_iterations:
            return
        if self._iterator is not None:  # idle persistent workers, which have the board of before
            self._iterator._shutdown_workers()
            self._iterator = None
        dataset.window = rows
        self._board = _board_of(dataset)

    def _resume_window(self, position: Position | None) -> None:
        """Use the window of the position to resume from."""
        rows = None if position is None else position.identity.get("window")
        if type(rows) is int:
            self.widen(rows)

    @property
    def packed(self) -> bool:
        """Whether the collate function declares samples of one length without padding."""
        return isinstance(self._collate, Packed) and self._collate.packed is True

    def __len__(self) -> int:
        """Batches in an epoch; with a teacher, lessons as last forecast."""
        return self._length

    def forecast(self, done: int = 0) -> int:
        """Set the length to the longest that the next epoch can have, and return it.

        A Trainer ends an epoch at the loader's length, so it must not be too small. It changes only
        here and in ``tell_length``.

        Args:
            done: See ``longest_epoch``.
        """
        plain = self.plain_batches
        return self.tell_length(longest_epoch(self.teacher, self.dataset, plain, done))

    def expect(self, epochs: int, done: int = 0, recorded: bool = False) -> int:
        """Estimate the total number of batches in the next epochs; see ``expected_batches``."""
        plain = self.plain_batches
        return expected_batches(
            self.teacher, self.dataset, plain, epochs=epochs, done=done, recorded=recorded
        )

    def tell_length(self, batches: int) -> int:
        """Set the length, and return it."""
        self._length = batches
        return batches

    @property
    def plain_batches(self) -> int:
        """Batches in an epoch without a teacher."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the batches of one epoch.

        Raises:
            TeacherError: The data set requires a teacher and none is attached, or a window was not
                chosen in time.
            CollateError: A taught batch does not have one row for each sample.
            OpenFilesError: A process is out of file descriptors.
        """
        with open_files_named():
            self._resume_window(self.dataset.coming_position)
            self._open_iterations += 1
            try:
                yield from self._batches()
            finally:
                self._open_iterations -= 1

    def _batches(self) -> Iterator[Any]:
        blocks = self._receive()  # noqa: F841  As long as this iteration's workers
        position = self.dataset.coming_position
        board = self._board  # of this iteration, whatever comes after it
        teacher = self.teacher
        if teacher is None and self.dataset.require_teacher:
            raise TeacherError(
                "this data set requires a teacher and none is attached: add AtteNT to the "
                "Trainer's algorithms, or set require_teacher to false for plain streaming"
            )
        if teacher is None and position is not None:
            # Finish the taught epoch, and keep everything that is not chosen yet.
            teacher = untaught(position.identity["seed"])
        self.epoch = None
        self.dataset.follow(None)
        before = self.dataset.coming_epoch
        begun = None if teacher is None else self.dataset.begin_epoch()
        epoch = begun.order.epoch if begun else self.dataset.coming_epoch
        generation = self.dataset.begin_iteration(
            board, teacher is not None, epoch, self._collate, self._teacher_timeout
        )
        taught = None
        if teacher is not None and begun is not None:
            try:
                taught = self._open(teacher, begun, position, board)
            except BaseException:  # no worker was asked to iterate yet
                board.cancel(generation)
                self.dataset.end_iteration(board, generation)
                raise
            self.epoch = taught
            self.dataset.follow(taught)
            if self.teacher is None and taught.units > 1:
                log.warning(
                    "The checkpoint is within a window of short pieces and no teacher is attached: "
                    "up to two windows are trained on as chosen, each row %d pieces of different "
                    "samples.",
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
            if taught is not None:
                taught.close()
            # Before the workers are stopped, as some may wait for a segment that will not come.
            board.end(generation)
            self.dataset.end_iteration(board, generation)

    def _receive(self) -> Blocks:
        """What receives the batches of the workers, which are new unless they are persistent."""
        if self._blocks is None or self._iterator is None:
            self._blocks = Blocks()
            self._tagged.send_to(self._blocks.key)
        return self._blocks

    def _open(
        self, teacher: Teacher, begun: EpochStart, position: Position | None, board: Board
    ) -> TaughtEpoch:
        return TaughtEpoch(
            begun.order,
            teacher,
            board,
            rank=self.dataset.rank,
            window=self.dataset.window,
            gap=self.dataset.gap,
            drop_last=self.drop_last,
            first_row=begun.first_row,
            position=position,
        )

    def _plain(self) -> Iterator[Any]:
        """Iterate as StreamingDataLoader does, but keep training's random states."""
        self.num_samples_yielded = 0
        batches = self._read(0)
        while True:
            with self._reading():
                batch = next(batches, batches)
            if batch is batches:
                return
            batch = as_batch(batch)
            self.num_samples_yielded += self._get_batch_size(batch)
            yield batch

    def _read(self, candidates: int) -> Iterator[Any]:
        """Start to read. The workers read ahead at least what a step needs and a batch more.

        Args:
            candidates: Batches of candidates that a step needs, at most.
        """
        if self._prefetch is not None:
            needed = min(candidates, _MOST_AHEAD) + 2 if candidates else 0
            self.prefetch_factor = max(self._prefetch, -(-needed // self.num_workers))
        batches = DataLoader.__iter__(self)
        widen(batches)
        return batches

    def _reading(self) -> AbstractContextManager:
        """Keep random states while a batch is read. Workers have their own."""
        return nullcontext() if self.num_workers else random_numbers_kept()

    def _taught(self, epoch: TaughtEpoch) -> Iterator[Any]:
        self.inbox = []
        batches = self._read(epoch.teacher.most_candidates)
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
            self._check(tagged.fault)
            batch = as_batch(tagged.batch)
            if role == CANDIDATE:
                needed = batch if index >= epoch.again else None
                self.inbox.append(Candidate(index, needed, tagged.features))
                continue
            self.fault = tagged.fault
            self.num_samples_yielded += len(epoch.lesson[0]) // epoch.units
            if self.teacher is None and epoch.due:
                epoch.choose()  # ``teach`` is not called without a teacher
            yield batch

    def _check(self, fault: str) -> None:
        if fault and self._strict:
            raise CollateError(fault)
        if fault and not self._told:
            self._told = True
            log.warning("Such batches are trained on without scores and weights: %s.", fault)

    def teach(self, score: Score, to_device: ToDevice = lambda tensor: tensor) -> list[Choice]:
        """Score the candidates in the inbox, and choose the next window when it is due.

        All ranks must call this together for every batch, with as many candidates in the inbox.

        Args:
            score: Scores a candidate batch, floating point of shape (batch_size,).
            to_device: Moves a tensor to where torch.distributed can gather it.

        Returns:
            The choices since the last call. The first call of an epoch returns its first choice.

        Raises:
            ScoreError: A batch cannot be scored.
        """
        epoch = self.epoch
        if epoch is None:
            return []
        if self.inbox and epoch.next is not None:
            record_candidates(self.inbox, epoch, epoch.next, self.dataset, score, to_device)
            self.inbox = []
        epoch.share()
        if epoch.due:
            epoch.choose(RankGroup.of_world(to_device))
        return epoch.take_choices()


def _board_of(dataset: TeachingDataset) -> Board:
    steps, size = 2 * dataset.window, dataset.batch_size
    return Board(steps=steps, batch_size=size, ahead=steps * size)
