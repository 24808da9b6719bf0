"""A taught epoch: segment after segment from the order, the teacher and the scores, in the main process of each rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.board import Board, Posting
from attent_stream.errors import TeacherError
from attent_stream.order import Order
from attent_stream.plan import CANDIDATE, LESSON, due_lesson, interleave, lane_labels, window_rows
from attent_stream.teacher import SCORED, Choice, Decision, Teacher, Window


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one rank does between two choices.

    Args:
        index: Which segment of the epoch.
        lessons: Sample ids of its lesson steps, int64 of shape (L, batch_size), filled up with -1 where short.
        weights: Of each, float32, same shape.
        candidates: Sample ids of its candidate steps, int64 of shape (C, batch_size); they are of the next window.
        roles: Role of each step, int8 of shape (L + C,).
        due: Index of the lesson at which the next window is chosen.
        choice: What the lessons were chosen from, or None for what follows the last full row.
    """

    index: int
    lessons: NDArray[np.int64]
    weights: NDArray[np.float32]
    candidates: NDArray[np.int64]
    roles: NDArray[np.int8]
    due: int
    choice: Choice | None


class TaughtEpoch:
    """Position in a taught epoch, and what has been published of it.

    Args:
        order: The epoch's order.
        teacher: Chooses the windows.
        board: Where this rank's workers read.
        rank: This rank among those that read different samples.
        window: Rows a window.
        gap: See ``TeachingDataset``.
        drop_last: Whether a short last batch is left out.
        first_row: Row at which the first window starts.
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
    ) -> None:
        self.order, self.teacher, self.board = order, teacher, board
        self.rank, self.window, self.gap, self.first_row = rank, window, gap, first_row
        size = order.layout.batch_size
        tail = [ids for ids in order.tail(rank) if len(ids) == size or not drop_last]
        self._tail = np.full((len(tail), size), -1, np.int64)
        for row, ids in zip(self._tail, tail, strict=True):
            row[: len(ids)] = ids
        self._published_steps = 0  # steps in the segments before the current one
        self._step = 0  # next step within the current segment
        self._lesson = -1  # lesson of the current segment that was handed out last
        self._waiting: Segment | None = None  # published, to follow the current one
        self._next: tuple[Window, Decision] | None = None  # to be chosen when due
        self._scores: NDArray | None = None  # of the next window, NaN where not yet known
        self._made: list[Choice] = []  # choices not yet taken
        self.segment = self._start()

    @property
    def done(self) -> bool:
        """Whether every step has been handed out."""
        return self._step == len(self.segment.roles) and self._waiting is None and not self._more

    @property
    def due(self) -> bool:
        """Whether the next segment must be chosen now, at the lesson handed out last."""
        return self._lesson >= self.segment.due and self._waiting is None and self._more

    @property
    def lesson(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and weights of the lesson handed out last, each of shape (n,)."""
        ids = self.segment.lessons[self._lesson]
        return ids[ids >= 0], self.segment.weights[self._lesson][ids >= 0]

    def expect(self) -> int:
        """Number of the step that the loader must hand out next; moves on to the next segment where one ends.

        Raises:
            TeacherError: The next window has not been chosen.
        """
        if self._step == len(self.segment.roles):
            if self._waiting is None:
                raise TeacherError(
                    f"window {self.segment.index + 1} of epoch {self.order.epoch} was not chosen in time: call "
                    f"loader.teach(score) once for every batch (AtteNT does so at AFTER_DATALOADER)"
                )
            self._published_steps += len(self.segment.roles)
            self.segment, self._waiting = self._waiting, None
            self._step, self._lesson = 0, -1
        return self._published_steps + self._step

    def advance(self) -> tuple[int, int]:
        """Take one step: its role, and its index among the segment's steps of that role."""
        role = int(self.segment.roles[self._step])
        self._step += 1
        if role == LESSON:
            self._lesson += 1
            return role, self._lesson
        return role, self._step - 1 - (self._lesson + 1)

    def record(self, rows: list[int], scores: NDArray) -> None:
        """Take the scores of candidate rows of the next window.

        Args:
            rows: Their indices within the window, length n.
            scores: Of all ranks' samples, float of shape (ranks, n, batch_size).
        """
        size = self.order.layout.row_size
        canonical = np.empty((len(rows), size), np.float64)
        for rank, part in enumerate(scores):
            slots = self.order.of_rank(np.arange(size)[None], rank)[0]
            canonical[:, slots] = part
        self._scores[rows] = canonical
        self.teacher.remember(self._next[0].ids[rows], canonical, self.order.epoch)

    def choose(self) -> None:
        """Choose and publish the next segment; to be called when ``due``."""
        if self._next is None:
            self._waiting = self._publish(self._tail_segment(self.segment.index + 1), ahead=0)
            return
        window, decision = self._next
        choice = self.teacher.choose(window, decision, self._scores)
        remaining = len(self.segment.lessons) - self._lesson
        self._waiting = self._compose(choice, self.segment.index + 1, remaining)

    def take_choices(self) -> list[Choice]:
        """Choices made since this was last called, for the log."""
        made, self._made = self._made, []
        return made

    def _start(self) -> Segment:
        window = self._window(0)
        if window is None:
            return self._publish(self._tail_segment(0), ahead=0)
        return self._compose(self.teacher.choose(window, self.teacher.decide(window, 0), None), 0, 0)

    def _window(self, index: int) -> Window | None:
        begin, end = window_rows(self.order.full, self.first_row, self.window, index)
        if begin == end:
            return None
        ids = self.order.window(begin, end)
        lanes = lane_labels(ids, self.order.layout, self.order.stream_starts)
        share = begin / max(1, self.order.full)
        layout = self.order.layout
        return Window(epoch=self.order.epoch, index=index, ids=ids, lanes=lanes, unit=layout.unit, share=share)

    def _compose(self, choice: Choice, index: int, remaining: int) -> Segment:
        self._made.append(choice)
        lessons = self.order.of_rank(choice.ids, self.rank)
        candidates = np.empty((0, lessons.shape[1]), np.int64)
        window = self._window(index + 1)
        self._next = self._scores = None
        if window is not None:
            decision = self.teacher.decide(window, remaining + len(lessons))
            self._next = window, decision
            if decision.by == SCORED:
                candidates = self.order.of_rank(window.ids, self.rank)
                self._scores = np.full(window.ids.shape, np.nan)
        segment = Segment(
            index=index,
            lessons=lessons,
            weights=self.order.of_rank(choice.weights, self.rank),
            candidates=candidates,
            roles=interleave(len(candidates), len(lessons), self.gap),
            due=due_lesson(len(lessons), self.gap),
            choice=choice,
        )
        return self._publish(segment, ahead=index + 2)

    def _tail_segment(self, index: int) -> Segment:
        lessons, self._tail = self._tail[: self.board.steps], self._tail[self.board.steps :]
        return Segment(
            index=index,
            lessons=lessons,
            weights=np.ones(lessons.shape, np.float32),
            candidates=np.empty((0, lessons.shape[1]), np.int64),
            roles=np.full(len(lessons), LESSON, np.int8),
            due=0,
            choice=None,
        )

    @property
    def _more(self) -> bool:
        """Whether anything is left to publish after the latest segment."""
        return self._next is not None or len(self._tail) > 0

    def _publish(self, segment: Segment, ahead: int) -> Segment:
        ids = np.empty((len(segment.roles), segment.lessons.shape[1]), np.int64)
        ids[segment.roles == LESSON] = segment.lessons
        ids[segment.roles == CANDIDATE] = segment.candidates
        begin, end = window_rows(self.order.full, self.first_row, self.window, ahead) if ahead else (0, 0)
        coming = self.order.of_rank(self.order.window(begin, end), self.rank).reshape(-1)
        first = self._first_step(segment)
        posting = Posting(first_step=first, ids=ids, last=not self._more, ahead=coming)
        self.board.publish(segment.index, posting)
        return segment

    def _first_step(self, segment: Segment) -> int:
        return 0 if segment.index == 0 else self._published_steps + len(self.segment.roles)
