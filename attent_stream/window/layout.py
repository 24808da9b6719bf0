"""Pure index arithmetic: windows of rows, how a segment interleaves its steps, which slots belong
to whom.

A *row* is one global batch of the order. Rows are handled in **canonical** slot order, which does
not depend on how many nodes and ranks read them: under node-wise batching, canonical slot ``i`` of
a row is read by node ``i % nodes``, by rank ``(i // nodes) % ranks_per_node`` of it, as that rank's
sample ``i // (nodes * ranks_per_node)``. This is Streaming's own striping
(``streaming/base/partition/orig.py``), so a row keeps its slots when a run resumes on another
number of nodes.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from attent_stream.window.selection import quota_rows

CANDIDATE = 0
LESSON = 1

# How each of Streaming's batching methods lays samples into a global batch: `striped` over
# canonical nodes, or `blocked` (slots in reading order). `unit` is the part of a row that always
# holds a single stream, if any.
STRIPED = frozenset({"random", "per_stream"})
UNIT = {"random": None, "stratified": None, "per_stream": "row", "device_per_stream": "device"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the slots of a row go.

    Args:
        nodes: Nodes that read (after replication).
        ranks_per_node: Ranks per node that read different samples.
        batch_size: Samples per rank and step.
        canonical_nodes: Streaming's ``num_canonical_nodes``.
        initial_nodes: Nodes of the run's first start, which fixes the number of lanes for good.
        batching: Streaming's ``batching_method``.
    """

    nodes: int
    ranks_per_node: int
    batch_size: int
    canonical_nodes: int
    initial_nodes: int
    batching: str

    def __post_init__(self) -> None:
        if self.batching not in UNIT:
            raise ValueError(f"batching must be one of {sorted(UNIT)}, got {self.batching!r}")
        for name in ("nodes", "ranks_per_node", "batch_size", "canonical_nodes", "initial_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def ranks(self) -> int:
        """Ranks that read different samples."""
        return self.nodes * self.ranks_per_node

    @property
    def row_size(self) -> int:
        """Samples in a row: the global batch size."""
        return self.ranks * self.batch_size

    @property
    def node_lanes(self) -> int:
        """Lanes by place: the finest split that every row divides evenly and no node count of the
        run can cross.
        """
        return gcd(max(self.canonical_nodes, self.initial_nodes), self.row_size)

    @property
    def unit(self) -> int:
        """Slots that must stay of one stream and so move together (``row_size`` where nothing is
        smaller).
        """
        return self.batch_size if UNIT[self.batching] == "device" else self.row_size


@lru_cache(maxsize=8)
def canonical_slots(layout: Layout) -> NDArray[np.int64]:
    """Canonical slot of each slot in reading order (node, rank, sample).

    Returns:
        Read-only int64 array of shape (row_size,), a permutation; it is asked for many times a
        window.
    """
    slots = np.arange(layout.row_size)
    if layout.batching in STRIPED:
        node, rank, sample = np.meshgrid(
            np.arange(layout.nodes),
            np.arange(layout.ranks_per_node),
            np.arange(layout.batch_size),
            indexing="ij",
        )
        slots = ((sample * layout.ranks_per_node + rank) * layout.nodes + node).reshape(-1)
    slots.flags.writeable = False
    return slots


def rank_slots(layout: Layout, origin: Layout, rank: int) -> NDArray[np.int64]:
    """Canonical slots that a rank reads of rows laid out as ``origin``, shape (batch_size,), in
    reading order.
    """
    return canonical_slots(origin).reshape(layout.ranks, layout.batch_size)[rank]


def lane_labels(
    rows: NDArray[np.int64], layout: Layout, stream_starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Lane of every slot.

    Args:
        rows: Sample ids in canonical slot order, shape (C, row_size), none of them -1.
        layout: Where slots go.
        stream_starts: First sample id of each stream, ascending, shape (num_streams,).

    Returns:
        int64 array of shape (C, row_size). Slots with the same label may swap samples.
    """
    count, size = rows.shape
    lanes = layout.node_lanes
    slots = np.arange(size)
    if layout.batching == "random":
        return np.broadcast_to(slots % lanes, (count, size))
    streams = np.searchsorted(stream_starts, rows, side="right") - 1
    if layout.batching == "per_stream":
        return streams * lanes + slots % lanes
    if layout.batching == "stratified":
        return streams * lanes + slots * lanes // size
    return streams * layout.ranks + slots // layout.batch_size


def lesson_count(candidates: int, keep: float) -> int:
    """Lesson rows to keep of ``candidates`` rows: rounded half up, at least one, at most all."""
    return max(1, min(candidates, int(np.floor(candidates * keep + 0.5))))


def interleave(candidates: int, lessons: int, gap: int) -> NDArray[np.int8]:
    """The roles of a segment's steps, in order.

    Candidates are spread evenly before the lessons up to ``due_lesson``, so that none is left for
    the last ones.

    Args:
        candidates: Candidate steps, of the next window; 0 or more.
        lessons: Lesson steps, of this window; 1 or more.
        gap: Lessons at the end with no candidate between them; see ``due_lesson``.

    Returns:
        int8 array of shape (candidates + lessons,) of ``CANDIDATE`` and ``LESSON``.
    """
    room = due_lesson(lessons, gap) + 1
    # Rounded so that the first lesson, which follows a border, has the fewest before it.
    places = np.minimum(np.arange(1, candidates + 1) * room // max(candidates, 1), room - 1)
    before = np.bincount(places, minlength=lessons)
    roles = np.full(candidates + lessons, CANDIDATE, np.int8)
    roles[np.cumsum(before) + np.arange(lessons)] = LESSON
    return roles


def due_lesson(lessons: int, gap: int) -> int:
    """Index of the lesson at which all candidates of its segment have been read: the next window is
    chosen here.

    At most a quarter of the lessons (but one) is left without candidates, so that most steps read
    alike.
    """
    return lessons - 1 - min(gap, max(1, lessons // 4), lessons - 1)


def window_rows(num_rows: int, first_row: int, window: int, index: int) -> tuple[int, int]:
    """Rows ``[begin, end)`` of window ``index`` of an epoch whose windows start at ``first_row``.

    The last window is shorter where the rows do not divide evenly; past the end both are
    ``num_rows``.
    """
    begin = min(num_rows, first_row + index * window)
    return begin, min(num_rows, begin + window)


def lesson_lanes(
    lanes: NDArray[np.int64], count: int, unit: int, offset: float
) -> NDArray[np.int64]:
    """Lanes of the slots of a window's lesson rows.

    Each column of units keeps its share of every stream, so a row (or device batch) that was of one
    stream stays so.

    Args:
        lanes: Lanes of the candidate slots, shape (C, row_size).
        count: Lesson rows, 1 to C.
        unit: Slots that move together, a divisor of row_size.
        offset: In [0, 1): which streams get the rows that do not divide evenly.

    Returns:
        int64 array of shape (count, row_size).
    """
    columns = []
    for begin in range(0, lanes.shape[1], unit):
        block = lanes[:, begin : begin + unit]
        columns.append(block[quota_rows(block[:, 0], count, offset)])
    return np.concatenate(columns, axis=1)
