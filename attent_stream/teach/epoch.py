"""A taught epoch in a rank's main process: segments from the order, the teacher and the scores."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import ALONE, Pick, RankGroup
from attent_stream.order.order import Order
from attent_stream.teach.board import Board
from attent_stream.teach.chooser import Chooser, Made
from attent_stream.teach.position import Chosen, Position
from attent_stream.teach.publisher import Publisher
from attent_stream.teach.resumed_decision import checked, resumed_decision
from attent_stream.teach.segment import Segment
from attent_stream.teach.segments import Segments
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.untold import Untold
from attent_stream.teach.upcoming import Upcoming
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import SCORED, Decision
from attent_stream.window.layout import LESSON, canonical_values, read_again


class TaughtEpoch:
    """A taught epoch: what has been published of it, and the position in it.

    Args:
        order: The epoch's order.
        teacher: Chooses the windows.
        board: Where this rank's workers read.
        rank: This rank's number among those that read different samples.
        window: Rows in a window.
        gap: See ``TeachingDataset``.
        drop_last: Whether a short last batch is dropped.
        first_row: Row at which the first window starts. After the last full row, the epoch is over.
        position: Where to resume; None to start.

    Attributes:
        chooser: Chooses the windows after the first, and publishes segments.

    Raises:
        ValueError: ``position`` is damaged, or was reached under other settings.
    """

    def __init__(
        self,
        order: Order,
        teacher: Teacher,
        board: Board,
        *,
        rank: int,
        window: int,
        gap: int,
        drop_last: bool,
        first_row: int = 0,
        position: Position | None = None,
    ) -> None:
        self.order, self.teacher, self.board, self.rank = order, teacher, board, rank
        self.first_row = position.first_row if position else first_row
        self._segments = Segments(
            order,
            rank=rank,
            window=window,
            gap=gap,
            steps=board.steps,
            drop_last=drop_last,
            first_row=self.first_row,
        )
        self._publisher = Publisher(board, order, self._segments, teacher, rank)
        self.chooser = Chooser(order, teacher, self._segments, self._publisher)
        self._published_steps = 0  # number of the current segment's first step
        self._step = 0  # next step of the current segment
        self._lesson = -1  # lesson of the current segment that was yielded last
        self._order: NDArray[np.int64] | None = None  # of its rows, if they were put in another
        self._waiting: Segment | None = None  # published, follows the current one
        self._again = 0  # see ``again``
        self._made: list[Choice] = []  # choices that were not taken yet
        self._apart: Choice | None = None  # handed out when its segment is entered
        if position is not None:
            position.check(self.identity)
            teacher.know(position.arrangements)
        board.tell(teacher.arrangements.dump(), teacher.settings.view)
        self.segment = self._start() if position is None else self._restore(position)

    @property
    def identity(self) -> dict[str, Any]:
        """Settings on which the meaning of a position depends."""
        return {**self._segments.identity, "seed": self.teacher.settings.seed}

    @property
    def done(self) -> bool:
        """Whether every step was yielded."""
        at_end = self._step == len(self.segment.roles)
        return at_end and self._waiting is None and not self._more

    @property
    def due(self) -> bool:
        """Whether the next segment must be chosen now."""
        chosen = self._waiting is not None or self.chooser.busy
        return self._lesson >= self.segment.due and not chosen and self._more

    @property
    def lesson(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Sample ids and weights of the last lesson batch, each of shape (n,).

        The pieces of a batch row follow each other.
        """
        ids = self.segment.lessons[self._lesson]
        ids, weights = ids[ids >= 0], self.segment.weights[self._lesson][ids >= 0]
        return (ids, weights) if self._order is None else (ids[self._order], weights[self._order])

    def reorder(self, order: NDArray[np.int64]) -> None:
        """Put ids and weights of the last lesson batch into the order that its rows have now.

        Args:
            order: Place of each row in the batch that was yielded, int64 of shape (n,).
        """
        self._order = order

    @property
    def units(self) -> int:
        """Number of pieces that each sample of the last lesson batch is cut into."""
        return self.segment.units

    @property
    def started(self) -> bool:
        """Whether a lesson of the epoch was yielded, here or before a resume."""
        return self._lesson >= 0 or self.segment.index > 0

    @property
    def position(self) -> Position:
        """The position after the last lesson. The loader's inbox must be empty."""
        if not self.chooser.shares:  # else as if it were not chosen yet: a rank may be alone here
            self._settle()
        coming = self.chooser.next
        scores = coming.scores if coming else None
        apart = self._apart
        return Position(
            identity=self.identity,
            arrangements=self.teacher.arrangements.dump(),
            epoch=self.order.epoch,
            first_row=self.first_row,
            segment=self.segment.index,
            lesson=self._lesson + 1,
            current=self.segment.chosen,
            following=self._waiting.chosen if self._waiting else None,
            next=self.next,
            scores=None if scores is None else scores.astype(np.float32),
            after=self.chooser.after,
            untold=None if apart is None else Untold.of(apart, self.order.stream_starts),
        )

    @property
    def again(self) -> int:
        """Candidate rows of the current segment that a resume reads again, for their features.

        They are the first ones, and their scores are known.
        """
        return self._again

    @property
    def next(self) -> Decision | None:
        """How the next window will be chosen; None after the last window."""
        coming = self.chooser.next
        return coming.decision if coming else None

    def expect(self) -> int:
        """Return the number of the next step, and enter the next segment at the end of one.

        Raises:
            TeacherError: The next window was not chosen.
        """
        while self._step == len(self.segment.roles):
            self._settle()
            if self._waiting is None:
                raise TeacherError(
                    f"window {self.segment.index + 1} of epoch {self.order.epoch} was not chosen "
                    "in time: call loader.teach(score) once for every batch, as AtteNT does at "
                    "AFTER_DATALOADER"
                )
            self._published_steps += len(self.segment.roles)
            self.segment, self._waiting = self._waiting, None
            self._step, self._lesson, self._again = 0, -1, 0
            if self._apart is not None:
                self._made.append(self._apart)
                self._apart = None
        return self._published_steps + self._step

    def advance(self) -> tuple[int, int]:
        """Take one step.

        Returns:
            The step's role, and its index among the segment's steps of that role.
        """
        role = int(self.segment.roles[self._step])
        self._step += 1
        if role == LESSON:
            self._lesson, self._order = self._lesson + 1, None
            return role, self._lesson
        return role, self._step - 1 - (self._lesson + 1)

    def record(self, rows: list[int], scores: NDArray) -> None:
        """Record scores of candidate rows of the next window.

        Args:
            rows: Indices of the rows within the window, length n.
            scores: Scores of all ranks' samples, float of shape (ranks, n, batch_size).
        """
        coming = self.chooser.scheduled
        canonical = coming.record(rows, scores)
        time = self.teacher.time(self.order.epoch)
        self.teacher.remember(coming.window.ids[rows], canonical, time)

    def feature_places(self, group: RankGroup = ALONE) -> Pick:
        """Which candidates of a row this rank needs the features of; see ``Upcoming``."""
        return self.chooser.scheduled.feature_places(self.teacher.arrangements, group)

    def record_features(self, rows: list[int], features: NDArray[np.float16]) -> None:
        """Record features of candidate rows of the next window; see ``Upcoming``."""
        self.chooser.scheduled.record_features(rows, features)

    def choose(self, group: RankGroup = ALONE) -> None:
        """Choose and publish the next segment when ``due``.

        All ranks of a group must call this together. A thread may choose a large window: see
        ``Chooser``. It is waited for at its first lesson, and halfway to it where ranks share
        something of it; see ``share``.
        """
        if self.chooser.next is None:
            self._waiting = self._publish(self.chooser.tail(self.segment.index + 1))
            return
        first = self._published_steps + len(self.segment.roles)
        self._take(self.chooser.choose(self.segment, self._lesson, first, group))

    def share(self) -> None:
        """Sum what ranks share of a choice that a thread makes. All ranks must call this together
        at each lesson.
        """
        self.chooser.share(self._lesson)

    def close(self) -> None:
        """Wait until nothing more is published."""
        self.chooser.close()

    def take_choices(self) -> list[Choice]:
        """Return the choices since the last call."""
        made, self._made = self._made, []
        return made

    def _settle(self) -> None:
        """Wait for the choice that is being made, if one is."""
        self._take(self.chooser.settle())

    def _take(self, made: Made | None) -> None:
        if made is None:
            return
        self._waiting = made.segment
        if made.apart:
            self._apart = made.choice
        else:
            self._made.append(made.choice)

    def _start(self) -> Segment:
        window = self._segments.window(0)
        if window is None:
            return self._publish(self.chooser.tail(0))
        decision, scores = self.teacher.decide(window, 0), None
        if decision.by == SCORED and self.teacher.first is not None:
            ids = self.order.of_rank(window.ids, self.rank)
            first = self.teacher.first(ids).astype(np.float64)
            scores = canonical_values(first, self.order.origin)
            self.teacher.remember(window.ids, scores, self.teacher.time(self.order.epoch))
        choice = self.teacher.choose(
            window, decision, scores, self._first_features(window, decision)
        )
        self._made.append(choice)
        return self._publish(self.chooser.compose(choice, 0, 0))

    def _first_features(self, window: Window, decision: Decision) -> NDArray[np.float16] | None:
        """Features of the first window, of which every rank has all."""
        teacher, order = self.teacher, self.order
        if not decision.features or teacher.first_features is None:
            return None
        first = Upcoming(window, decision, layout=order.layout, origin=order.origin)
        ids = order.of_rank(window.ids, self.rank)
        pick = first.feature_places(teacher.arrangements, ALONE)
        return teacher.first_features(ids, teacher.arrangements, decision, pick)

    def _restore(self, position: Position) -> Segment:
        following = position.following
        upcoming = self._segments.window(position.segment + (2 if following else 1))
        last = resumed_decision(self.teacher, upcoming, position)
        # The decision about a window that was chosen already is in that choice.
        decision = following.decision if following else last
        segment = self._rebuild(position.current, position.segment, decision)
        self._lesson = position.lesson - 1
        if position.lesson:
            self._step = int(np.flatnonzero(segment.roles == LESSON)[self._lesson]) + 1
        coming = self.chooser.next
        if following is None and coming is not None and coming.decision.features:
            # Of a large window each rank had the features of some slots, so they are not in the
            # checkpoint: it would be a kilobyte a sample
            segment = replace(segment, roles=read_again(segment.roles, self._step))
            self._again = self._step - position.lesson
            self._step = position.lesson
        self._published_steps = -self._step
        self._publish(segment, skip=self._step)
        tail_follows = (
            last is None
            and segment.index + 1 < self._segments.count
            and self._lesson >= segment.due
        )
        if following or tail_follows:
            self.segment = segment  # the next segment's first step depends on it
            self._waiting = self._publish(self._rebuild(following, position.segment + 1, last))
            if self._waiting.choice is not None and position.untold is not None:
                self._apart = position.untold.told(self._waiting.choice)
        elif position.after is not None:
            self.chooser.after = self._planned(position.after, position.segment + 2)
        coming = self.chooser.next
        if coming is not None and position.scores is not None:
            coming.resume_scores(position.scores, position.next)
        return segment

    def _planned(self, decision: Decision, index: int) -> Decision | None:
        """A checkpoint's decision about a window, if this teacher can carry it out."""
        window = self._segments.window(index)
        planned = self.teacher.arrangements.kept(checked(self.teacher, decision))
        can = window is not None and self.teacher.can_carry_out(planned, window)
        return planned if can else None

    def _rebuild(self, chosen: Chosen | None, index: int, decision: Decision | None) -> Segment:
        window = self._segments.window(index)
        if chosen is None or window is None:
            return self.chooser.tail(index)
        checked(self.teacher, chosen.decision)
        return self.chooser.compose(self.teacher.recover(window, chosen), index, 0, decision)

    @property
    def _more(self) -> bool:
        """Whether a segment follows the current one."""
        return self.segment.index + 1 < self._segments.count

    def _publish(self, segment: Segment, skip: int = 0) -> Segment:
        first = self._published_steps + len(self.segment.roles) if self._publisher.count else 0
        self.chooser.publish(segment, first, skip)
        return segment
