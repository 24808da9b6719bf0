"""Publishes an epoch's segments on the board of a rank's workers."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.order import Order
from attent_stream.teach.board import Board, Posting
from attent_stream.teach.segment import Segment
from attent_stream.teach.segments import Segments
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.upcoming import Upcoming
from attent_stream.window.decision import ALL, RANDOM, REMEMBERED, SCORED


class Publisher:
    """Publishes the segments of an epoch, one after the other.

    Args:
        board: Where this rank's workers read.
        order: The epoch's order.
        segments: The epoch's windows and segments.
        teacher: Chooses the windows.
        rank: This rank's number among those that read different samples.
    """

    def __init__(
        self, board: Board, order: Order, segments: Segments, teacher: Teacher, rank: int
    ) -> None:
        self._board, self._order, self._segments = board, order, segments
        self._teacher, self._rank = teacher, rank
        self._count = 0

    @property
    def count(self) -> int:
        """Number of segments that are published or reserved."""
        return self._count

    def reserve(self) -> int:
        """Return the number of the next segment to be published."""
        self._count += 1
        return self._count - 1

    def publish(
        self,
        number: int,
        segment: Segment,
        coming: Upcoming | None,
        first_step: int,
        *,
        skip: int = 0,
        recalled: NDArray[np.float32] | None = None,
    ) -> None:
        """Publish a segment; a thread may do it.

        Args:
            number: What ``reserve`` returned.
            segment: The segment.
            coming: The window that is chosen next; None after the last one.
            first_step: Number of the segment's first step that is published.
            skip: Steps of the segment that were taken before a resume.
            recalled: Remembered scores of ``coming``. None: they are read if they are needed, which
                only the main thread may do.
        """
        vector = self._teacher.arrangements.vector
        following = coming.decision if coming else None
        posting = Posting(
            first_step=first_step,
            ids=segment.ids[skip:],
            roles=segment.roles[skip:].astype(np.int64),
            lesson_notes=tuple(vector(segment.decision)),
            candidate_notes=tuple(vector(following)) if following else (),
            scored=following is not None and following.by == SCORED,
            last=segment.index + 1 >= self._segments.count,
            ahead=self._ahead(segment.index, coming, recalled),
        )
        self._board.publish(number, posting)

    def _ahead(
        self, index: int, coming: Upcoming | None, recalled: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        """Return this rank's sample ids to prefetch after a segment.

        Of a window that is chosen without reading its candidates, these are only the ids that would
        be chosen now. So no shard is fetched for dropped samples only.
        """
        near = np.empty(0, np.int64)
        if coming is not None:
            window, decision = coming.window, coming.decision
            by_memory = not decision.reads and decision.by in (RANDOM, REMEMBERED)
            # After a resume the teacher may have other settings.
            known = recalled is not None
            if by_memory and (known or self._teacher.can_carry_out(decision, window)):
                whole = replace(decision, notes=(), units=1)
                likely = self._teacher.choose(window, whole, recalled)
                return self._order.of_rank(likely.ids, self._rank).reshape(-1)
            if decision.by == ALL and not decision.reads:
                near = self._order.of_rank(window.ids, self._rank).reshape(-1)
        return np.concatenate([near, self._segments.ids_of_window(index + 2)])
