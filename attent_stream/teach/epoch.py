"""A taught epoch: segment after segment from the order, the teacher and the scores, in the main
process of each rank.
"""

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import ALONE, RankGroup
from attent_stream.order.order import STREAMING, Order
from attent_stream.teach.board import Board, Posting
from attent_stream.teach.position import Chosen, Position
from attent_stream.teach.segment import Segment
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import ALL, RANDOM, REMEMBERED, SCORED, Decision
from attent_stream.window.layout import (
    LESSON,
    canonical_slots,
    due_lesson,
    interleave,
    lane_labels,
    window_rows,
)


class TaughtEpoch:
    """A taught epoch under way, and what has been published of it.

    Args:
        order: The epoch's order.
        teacher: Chooses the windows.
        board: Where this rank's workers read.
        rank: This rank among those that read different samples.
        window: Rows of a window.
        gap: See ``TeachingDataset``.
        drop_last: Whether a short last batch is left out.
        first_row: Row at which the first window starts. Past the last full row, the epoch is over.
        position: Where to go on; None to start.

    Raises:
        ValueError: ``position`` was reached under other settings.
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
        self.order, self.teacher, self.board = order, teacher, board
        self.rank, self.window, self.gap = rank, window, gap
        self.first_row = position.first_row if position else first_row
        size = order.layout.batch_size
        tail = [ids for ids in order.tail(rank) if len(ids) == size or not drop_last]
        tail = tail if self.first_row <= order.full else []
        self._streams, self._order = _fingerprint(order.stream_starts), _order_fingerprint(order)
        self._tail = np.full((len(tail), size), -1, np.int64)
        for row, ids in zip(self._tail, tail, strict=True):
            row[: len(ids)] = ids
        self._windows = -(-max(0, order.full - self.first_row) // window)
        self._segments = self._windows + -(-len(tail) // board.steps)
        self._postings = 0  # segments published so far
        self._published_steps = 0  # number of the current segment's first step
        self._step = 0  # next step of the current segment
        self._lesson = -1  # lesson of the current segment that was handed out last
        self._waiting: Segment | None = None  # published, follows the current one
        self._next: tuple[Window, Decision] | None = None  # to be chosen when due
        self._scores: NDArray | None = None  # of the next window, NaN where not yet known
        self._features: NDArray | None = None  # the same; None before the first are known
        self._made: list[Choice] = []  # choices not yet taken
        if position is not None:
            position.check(self.identity)
            teacher.know(position.arrangements)
        board.arrange(teacher.arrangements.dump())
        self.segment = self._start() if position is None else self._restore(position)

    @property
    def identity(self) -> dict[str, Any]:
        """What the meaning of a position depends on."""
        layout = self.order.layout
        return {
            "window": self.window,
            "gap": self.gap,
            "global batch size": layout.row_size,
            "lanes": layout.node_lanes,
            "batching_method": layout.batching,
            "rows": self.order.full,
            "streams": len(self.order.stream_starts),
            "samples before each stream": self._streams,
            "order (shuffle, its seed, stream proportions)": self._order,
            "seed": self.teacher.settings.seed,
            "ranks": layout.ranks if layout.batching == "device_per_stream" else None,
            # None where older positions have no such entry.
            "order kind": self.order.kind if self.order.kind != STREAMING else None,
        }

    @property
    def done(self) -> bool:
        """Whether every step has been handed out."""
        at_end = self._step == len(self.segment.roles)
        return at_end and self._waiting is None and not self._more

    @property
    def due(self) -> bool:
        """Whether the next segment must be chosen now, at the lesson handed out last."""
        return self._lesson >= self.segment.due and self._waiting is None and self._more

    @property
    def lesson(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Sample ids and weights of the lesson batch handed out last, each of shape (n,). The
        pieces of a batch row follow each other.
        """
        ids = self.segment.lessons[self._lesson]
        return ids[ids >= 0], self.segment.weights[self._lesson][ids >= 0]

    @property
    def units(self) -> int:
        """Pieces that each sample of the lesson batch handed out last is cut into."""
        return self.segment.units

    @property
    def started(self) -> bool:
        """Whether a lesson has been handed out, now or before the position it goes on from."""
        return self._lesson >= 0 or self.segment.index > 0

    @property
    def position(self) -> Position:
        """The position after the lesson handed out last. The inbox must be empty."""
        scores, features = self._scores, self._features
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
            features=None if features is None else features.reshape(len(features), -1),
        )

    @property
    def next(self) -> Decision | None:
        """How the next window will be chosen; None if there is none."""
        return self._next[1] if self._next else None

    def expect(self) -> int:
        """Number of the step that the loader must hand out next. Moves on to the next segment at
        the end of one.

        Raises:
            TeacherError: The next window has not been chosen.
        """
        while self._step == len(self.segment.roles):
            if self._waiting is None:
                raise TeacherError(
                    f"window {self.segment.index + 1} of epoch {self.order.epoch} was not chosen "
                    "in time: call loader.teach(score) once for every batch (AtteNT does so at "
                    "AFTER_DATALOADER)"
                )
            self._published_steps += len(self.segment.roles)
            self.segment, self._waiting = self._waiting, None
            self._step, self._lesson = 0, -1
        return self._published_steps + self._step

    def advance(self) -> tuple[int, int]:
        """Take one step.

        Returns:
            Its role, and its index among the segment's steps of that role.
        """
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
            scores: Scores of all ranks' samples, float of shape (ranks, n, batch_size).
        """
        window, _ = self._scheduled()
        if self._scores is None:
            raise TeacherError(f"window {window.index} of epoch {window.epoch} needs no scores")
        canonical = self._canonical(scores.astype(np.float64))
        self._scores[rows] = canonical
        time = self.teacher.time(self.order.epoch)
        self.teacher.remember(window.ids[rows], canonical, time)

    def record_features(self, rows: list[int], features: NDArray[np.float16]) -> None:
        """Take the features of candidate rows of the next window.

        Args:
            rows: See ``record``.
            features: Features of all ranks' samples, shape (ranks, n, batch_size, d).
        """
        window, _ = self._scheduled()
        if self._features is None:
            shape = (*window.ids.shape, features.shape[-1])
            self._features = np.full(shape, np.nan, np.float16)
        self._features[rows] = self._canonical(features)

    def choose(self, group: RankGroup = ALONE) -> None:
        """Choose and publish the next segment, when ``due``. All ranks of a group call together."""
        index = self.segment.index + 1
        if self._next is None:
            self._waiting = self._publish(self._tail_segment(index))
            return
        window, decision = self._next
        choice = self.teacher.choose(window, decision, self._scores, self._features, group)
        self._made.append(choice)
        remaining = len(self.segment.lessons) - self._lesson
        self._waiting = self._publish(self._compose(choice, index, remaining))

    def take_choices(self) -> list[Choice]:
        """Choices made since the last call."""
        made, self._made = self._made, []
        return made

    def _scheduled(self) -> tuple[Window, Decision]:
        if self._next is None:
            raise TeacherError(f"epoch {self.order.epoch} has no window left to be chosen")
        return self._next

    def _canonical(self, values: NDArray) -> NDArray:
        """All ranks' values in canonical slots: (ranks, n, batch_size, ...) to (n, row_size, ...)."""
        size, inner = self.order.layout.row_size, values.shape[3:]
        canonical = np.empty((values.shape[1], size, *inner), values.dtype)
        # All ranks at once: a loop over 8,192 of them for each inbox would dominate a large job.
        canonical[:, canonical_slots(self.order.origin)] = values.swapaxes(0, 1).reshape(
            values.shape[1], size, *inner
        )
        return canonical

    def _start(self) -> Segment:
        window = self._window(0)
        if window is None:
            return self._publish(self._tail_segment(0))
        choice = self.teacher.choose(window, self.teacher.decide(window, 0), None)
        self._made.append(choice)
        return self._publish(self._compose(choice, 0, 0))

    def _restore(self, position: Position) -> Segment:
        last = self._planned(position)
        following = position.following
        # If the next window is chosen already, what was decided of it is in that choice.
        decision = following.decision if following else last
        segment = self._rebuild(position.current, position.segment, decision)
        self._lesson = position.lesson - 1
        if position.lesson:
            self._step = int(np.flatnonzero(segment.roles == LESSON)[self._lesson]) + 1
        self._published_steps = -self._step
        self._publish(segment, skip=self._step)
        tail_follows = (
            last is None and segment.index + 1 < self._segments and self._lesson >= segment.due
        )
        if following or tail_follows:
            self.segment = segment  # the next one's first step is counted from it
            self._waiting = self._publish(self._rebuild(following, position.segment + 1, last))
        if position.scores is not None and self._scores is not None:
            self._scores = position.scores.astype(np.float64)
        if position.features is not None and self._next is not None and self._next[1].features:
            rows, size = self._next[0].ids.shape
            if len(position.features) != rows or position.features.shape[1] % size:
                raise ValueError(
                    f"expected features of {rows} rows of {size} samples, got shape "
                    f"{position.features.shape}"
                )
            self._features = position.features.reshape(rows, size, -1)
        return segment

    def _planned(self, position: Position) -> Decision | None:
        """What was decided of the window to be chosen next. It is decided anew where this teacher
        cannot carry it out.
        """
        window = self._window(position.segment + (2 if position.following else 1))
        if position.next is None or window is None:
            return None
        # Some of its candidates may have been read already, so no arrangement can be added.
        planned = self.teacher.arrangements.kept(self._checked(position.next))
        if self.teacher.can_carry_out(planned, window):
            return planned
        ahead = -position.lesson
        for chosen in (position.current, position.following):
            ahead += chosen.decision.lessons if chosen else 0
        fresh = self.teacher.decide(window, ahead)
        # Some of its candidates may have been read already, so it cannot be scored whole.
        by, lessons = (ALL, len(window.ids)) if fresh.by == SCORED else (fresh.by, fresh.lessons)
        return replace(planned, by=by, lessons=lessons)

    def _checked(self, decision: Decision) -> Decision:
        """A checkpoint's decision.

        Raises:
            ValueError: Its notes do not fit to the rest of it.
        """
        if self.teacher.arrangements.noted(decision, decision.notes) != decision:
            raise ValueError(f"the checkpoint's teaching position is damaged: {decision}")
        return decision

    def _rebuild(self, chosen: Chosen | None, index: int, decision: Decision | None) -> Segment:
        window = self._window(index)
        if chosen is None or window is None:
            return self._tail_segment(index)
        self._checked(chosen.decision)
        return self._compose(self.teacher.recover(window, chosen), index, 0, decision)

    def _window(self, index: int) -> Window | None:
        begin, end = window_rows(self.order.full, self.first_row, self.window, index)
        if begin == end:
            return None
        ids = self.order.window(begin, end)
        rows = max(1, self.order.full)
        return Window(
            epoch=self.order.epoch,
            index=index,
            ids=ids,
            lanes=lane_labels(ids, self.order.layout, self.order.stream_starts),
            unit=self.order.layout.unit,
            share=begin / rows,
            until=end / rows,
        )

    def _compose(
        self, choice: Choice, index: int, remaining: int, decision: Decision | None = None
    ) -> Segment:
        lessons = self._of_rank(choice, choice.ids)
        candidates = np.empty((0, self.board.batch_size), np.int64)
        window = self._window(index + 1)
        self._next = self._scores = self._features = None
        if window is not None:
            decision = decision or self.teacher.decide(window, remaining + len(lessons))
            self._next = window, decision
            if decision.reads:
                candidates = self.order.of_rank(window.ids, self.rank)
            if decision.by == SCORED:
                self._scores = np.full(window.ids.shape, np.nan)
        return Segment(
            index=index,
            lessons=lessons,
            pieces=self._of_rank(choice, choice.pieces),
            weights=self._of_rank(choice, choice.weights),
            candidates=candidates,
            roles=interleave(len(candidates), len(lessons), self.gap),
            due=due_lesson(len(lessons), self.gap),
            choice=choice,
        )

    def _of_rank(self, choice: Choice, values: NDArray) -> NDArray:
        """This rank's part of values of shape (L, row_size * units)."""
        rows = values.reshape(len(values), -1, choice.decision.units)
        return self.order.of_rank(rows, self.rank).reshape(len(values), -1)

    def _tail_segment(self, index: int) -> Segment:
        begin = (index - self._windows) * self.board.steps
        lessons = self._tail[begin : begin + self.board.steps]
        self._next = self._scores = self._features = None
        return Segment(
            index=index,
            lessons=lessons,
            pieces=np.zeros_like(lessons),
            weights=np.ones(lessons.shape, np.float32),
            candidates=np.empty((0, lessons.shape[1]), np.int64),
            roles=np.full(len(lessons), LESSON, np.int8),
            due=0,
            choice=None,
        )

    @property
    def _more(self) -> bool:
        """Whether a segment follows the current one."""
        return self.segment.index + 1 < self._segments

    def _publish(self, segment: Segment, skip: int = 0) -> Segment:
        vector = self.teacher.arrangements.vector
        following = self.next
        first = self._published_steps + len(self.segment.roles) if self._postings else 0
        posting = Posting(
            first_step=first,
            ids=segment.ids[skip:],
            roles=segment.roles[skip:].astype(np.int64),
            lesson_notes=tuple(vector(segment.decision)),
            candidate_notes=tuple(vector(following)) if following else (),
            scored=following is not None and following.by == SCORED,
            last=segment.index + 1 >= self._segments,
            ahead=self._ahead(segment.index),
        )
        self.board.publish(self._postings, posting)
        self._postings += 1
        return segment

    def _ahead(self, index: int) -> NDArray[np.int64]:
        """This rank's sample ids that will be needed after a segment. Of a window that is chosen
        without reading its candidates, only what would be chosen now: no shard is fetched for
        dropped samples alone.
        """
        near = np.empty(0, np.int64)
        if self._next is not None:
            window, decision = self._next
            by_memory = not decision.reads and decision.by in (RANDOM, REMEMBERED)
            # After a resume the teacher may be another.
            if by_memory and self.teacher.can_carry_out(decision, window):
                whole = replace(decision, notes=(), units=1)
                likely = self.teacher.choose(window, whole, None)
                return self.order.of_rank(likely.ids, self.rank).reshape(-1)
            if decision.by == ALL and not decision.reads:
                near = self.order.of_rank(window.ids, self.rank).reshape(-1)
        begin, end = window_rows(self.order.full, self.first_row, self.window, index + 2)
        later = self.order.of_rank(self.order.window(begin, end), self.rank).reshape(-1)
        return np.concatenate([near, later])


def _fingerprint(ids: NDArray) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(ids, np.int64).tobytes()):08x}"


def _order_fingerprint(order: Order) -> str:
    """A hash of some rows from all over the epoch. Another shuffle, seed or set of streams changes
    nearly all of them.
    """
    rows = np.empty(0, np.int64)
    if order.full:
        rows = np.unique(np.linspace(0, order.full, 16, endpoint=False).astype(np.int64))
    return _fingerprint(np.array([order.window(row, row + 1) for row in rows]))
