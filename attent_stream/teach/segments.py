"""The windows and segments of an epoch, for one rank."""

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.order import STREAMING, Order
from attent_stream.teach.segment import Segment
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import Decision
from attent_stream.window.layout import LESSON, due_lesson, interleave, lane_labels, window_rows


class Segments:
    """Builds the windows and segments of an epoch.

    A segment follows each window. The last ones carry what follows the last full row.

    Args:
        order: The epoch's order.
        rank: This rank's number among those that read different samples.
        window: Rows in a window.
        gap: See ``TeachingDataset``.
        steps: Largest number of steps in a segment without a window.
        drop_last: Whether a short last batch is dropped.
        first_row: Row at which the first window starts. After the last full row, the epoch is over.

    Attributes:
        count: Number of segments.
        identity: Settings on which the meaning of a position depends.
    """

    def __init__(
        self,
        order: Order,
        *,
        rank: int,
        window: int,
        gap: int,
        steps: int,
        drop_last: bool,
        first_row: int,
    ) -> None:
        self._order, self._rank, self._window, self._gap = order, rank, window, gap
        self._first_row, self._steps = first_row, steps
        size = order.layout.batch_size
        tail = [ids for ids in order.tail(rank) if len(ids) == size or not drop_last]
        tail = tail if first_row <= order.full else []
        self._tail = np.full((len(tail), size), -1, np.int64)
        for row, ids in zip(self._tail, tail, strict=True):
            row[: len(ids)] = ids
        self._windows = -(-max(0, order.full - first_row) // window)
        self.count = self._windows + -(-len(tail) // steps)
        layout = order.layout
        self.identity: dict[str, Any] = {
            "window": window,
            "gap": gap,
            "global batch size": layout.row_size,
            "lanes": layout.node_lanes,
            "batching_method": layout.batching,
            "rows": order.full,
            "streams": len(order.stream_starts),
            "samples before each stream": _fingerprint(order.stream_starts),
            "order (shuffle, its seed, stream proportions)": _order_fingerprint(order),
            "ranks": layout.ranks if layout.batching == "device_per_stream" else None,
            # None, as older positions do not have this entry.
            "order kind": order.kind if order.kind != STREAMING else None,
        }

    def window(self, index: int) -> Window | None:
        """Return a window, or None after the last one."""
        outline = self.outline(index)
        if outline is None:
            return None
        begin, end = window_rows(self._order.full, self._first_row, self._window, index)
        ids = self._order.window(begin, end)
        lanes = lane_labels(ids, self._order.layout, self._order.stream_starts)
        return replace(outline, ids=ids, lanes=lanes)

    def outline(self, index: int) -> Window | None:
        """Return a window without its samples: all ids and lanes are 0 and take no memory."""
        begin, end = window_rows(self._order.full, self._first_row, self._window, index)
        if begin == end:
            return None
        rows, layout = max(1, self._order.full), self._order.layout
        none = np.broadcast_to(np.int64(0), (end - begin, layout.row_size))
        return Window(
            epoch=self._order.epoch,
            index=index,
            ids=none,
            lanes=none,
            unit=layout.unit,
            share=begin / rows,
            until=end / rows,
        )

    def ids_of_window(self, index: int) -> NDArray[np.int64]:
        """Return this rank's sample ids in a window, shape (n,); empty after the last one."""
        begin, end = window_rows(self._order.full, self._first_row, self._window, index)
        return self._order.of_rank(self._order.window(begin, end), self._rank).reshape(-1)

    def of_choice(
        self, choice: Choice, index: int, following: Window | None, decision: Decision | None
    ) -> Segment:
        """Build the segment of a choice.

        Args:
            choice: The choice of its lessons.
            index: Number of the segment.
            following: The next window, whose candidates the segment reads if needed.
            decision: How that window will be chosen.
        """
        lessons = self._lessons(choice, choice.ids)
        candidates = np.empty((0, self._order.layout.batch_size), np.int64)
        if following is not None and decision is not None and decision.reads:
            candidates = self._order.of_rank(following.ids, self._rank)
        return Segment(
            index=index,
            lessons=lessons,
            pieces=self._lessons(choice, choice.pieces),
            weights=self._lessons(choice, choice.weights),
            candidates=candidates,
            roles=interleave(len(candidates), len(lessons), self._gap),
            due=due_lesson(len(lessons), self._gap),
            choice=choice,
        )

    def of_tail(self, index: int) -> Segment:
        """Build a segment of what follows the last full row."""
        begin = (index - self._windows) * self._steps
        lessons = self._tail[begin : begin + self._steps]
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

    def _lessons(self, choice: Choice, values: NDArray) -> NDArray:
        """Return this rank's part of values of shape (L, row_size * units)."""
        rows = values.reshape(len(values), -1, choice.decision.units)
        return self._order.of_rank(rows, self._rank).reshape(len(values), -1)


def _fingerprint(ids: NDArray) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(ids, np.int64).tobytes()):08x}"


def _order_fingerprint(order: Order) -> str:
    """Hash rows from all over the epoch, which depend on the shuffle, its seed and the streams."""
    rows = np.empty(0, np.int64)
    if order.full:
        rows = np.unique(np.linspace(0, order.full, 16, endpoint=False).astype(np.int64))
    return _fingerprint(np.array([order.window(row, row + 1) for row in rows]))
