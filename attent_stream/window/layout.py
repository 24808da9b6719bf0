"""Index arithmetic for windows of rows, steps of segments, and slots of ranks. Pure functions.

A *row* is a global batch of the order. Rows are in **canonical** slot order, which does not depend
on the number of nodes and ranks. Under striped batching, canonical slot ``i`` of a row is read by
node ``i % nodes`` and its rank ``(i // nodes) % ranks_per_node``, as sample
``i // (nodes * ranks_per_node)`` of the rank's batch. This is Streaming's striping
(``streaming/base/partition/orig.py``). So a row keeps its slots when a run resumes on another
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

# Streaming's batching methods that stripe a global batch over canonical nodes. The others have
# slots in reading order.
STRIPED = frozenset({"random", "per_stream"})
# The unit of a row that has samples of one stream only, if any.
UNIT = {"random": None, "stratified": None, "per_stream": "row", "device_per_stream": "device"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the slots of a row are assigned to nodes and ranks.

    Args:
        nodes: Nodes that read different samples.
        ranks_per_node: Ranks of a node that read different samples.
        batch_size: Samples in a rank's batch.
        canonical_nodes: Streaming's ``num_canonical_nodes``.
        initial_nodes: Nodes of the run's first start. They fix the number of lanes.
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
        """Number of ranks that read different samples."""
        return self.nodes * self.ranks_per_node

    @property
    def row_size(self) -> int:
        """Samples in a row: the global batch size."""
        return self.ranks * self.batch_size

    @property
    def node_lanes(self) -> int:
        """Lanes by slot: the largest number that divides a row and respects all node counts."""
        return gcd(max(self.canonical_nodes, self.initial_nodes), self.row_size)

    @property
    def unit(self) -> int:
        """Slots that must keep samples of one stream, and so move together."""
        return self.batch_size if UNIT[self.batching] == "device" else self.row_size


@lru_cache(maxsize=8)
def canonical_slots(layout: Layout) -> NDArray[np.int64]:
    """Return the canonical slot of each slot in reading order (node, rank, sample).

    Returns:
        Read-only int64 array of shape (row_size,), a permutation.
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


@lru_cache(maxsize=8)
def reading_order(layout: Layout) -> NDArray[np.int64]:
    """Return the place in reading order of each canonical slot, read-only, shape (row_size,)."""
    places = np.argsort(canonical_slots(layout))
    places.flags.writeable = False
    return places


def canonical_values(values: NDArray, layout: Layout) -> NDArray:
    """Put all ranks' values into canonical slot order.

    Args:
        values: Values of each rank's samples, shape (ranks, n, batch_size).
        layout: The layout of ranks.

    Returns:
        Shape (n, row_size).
    """
    # All ranks at once, as a loop over 8,192 of them would dominate a large job.
    canonical = np.empty((values.shape[1], layout.row_size), values.dtype)
    canonical[:, canonical_slots(layout)] = values.swapaxes(0, 1).reshape(values.shape[1], -1)
    return canonical


def rank_slots(layout: Layout, origin: Layout, rank: int) -> NDArray[np.int64]:
    """Return the canonical slots that a rank reads, in reading order, shape (batch_size,).

    Args:
        layout: The current layout.
        origin: The layout in which the rows were made.
        rank: The rank's number.
    """
    return canonical_slots(origin).reshape(layout.ranks, layout.batch_size)[rank]


def lane_labels(
    rows: NDArray[np.int64], layout: Layout, stream_starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the lane of every slot.

    Args:
        rows: Sample ids in canonical slot order, shape (C, row_size), without -1.
        layout: The layout of slots.
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
    """Return the number of lesson rows: rounded half up, at least one, at most all."""
    return max(1, min(candidates, int(np.floor(candidates * keep + 0.5))))


def interleave(candidates: int, lessons: int, gap: int) -> NDArray[np.int8]:
    """Return the roles of a segment's steps, in order.

    Candidates are spread evenly before the lessons up to ``due_lesson``.

    Args:
        candidates: Number of candidate steps, of the next window; 0 or more.
        lessons: Number of lesson steps, of this window; 1 or more.
        gap: Lessons at the end without candidates between them; see ``due_lesson``.

    Returns:
        int8 array of shape (candidates + lessons,) of ``CANDIDATE`` and ``LESSON``.
    """
    room = due_lesson(lessons, gap) + 1
    # Rounded so that the first lesson, right after a choice, has the fewest candidates before it.
    lesson_of = np.minimum(np.arange(1, candidates + 1) * room // max(candidates, 1), room - 1)
    before = np.bincount(lesson_of, minlength=lessons)
    roles = np.full(candidates + lessons, CANDIDATE, np.int8)
    roles[np.cumsum(before) + np.arange(lessons)] = LESSON
    return roles


def read_again(roles: NDArray[np.int8], done: int) -> NDArray[np.int8]:
    """Roles in which the candidates of the steps that were done follow their lessons, to be read
    again.

    Args:
        roles: Roles of a segment's steps.
        done: Number of steps that were done.
    """
    lessons = roles[:done] == LESSON
    return np.concatenate([roles[:done][lessons], roles[:done][~lessons], roles[done:]])


def due_lesson(lessons: int, gap: int) -> int:
    """Return the index of the lesson at which the next window is chosen.

    All candidates of the segment have been read before it. At most ``gap`` lessons follow it, and
    at most a quarter of all lessons (but one), so that most steps read alike.
    """
    return lessons - 1 - min(gap, max(1, lessons // 4), lessons - 1)


def window_rows(num_rows: int, first_row: int, window: int, index: int) -> tuple[int, int]:
    """Return the rows ``[begin, end)`` of a window; both are ``num_rows`` after the last one.

    Args:
        num_rows: Full rows in the epoch.
        first_row: Row at which the first window starts.
        window: Rows in a window. The last one may have fewer.
        index: Number of the window.
    """
    begin = min(num_rows, first_row + index * window)
    return begin, min(num_rows, begin + window)


def lesson_lanes(
    lanes: NDArray[np.int64], count: int, unit: int, offset: float
) -> NDArray[np.int64]:
    """Return the lanes of the slots of a window's lesson rows.

    Each column of units keeps its share of every stream. So a row or device batch of one stream
    stays of one stream.

    Args:
        lanes: Lanes of the candidate slots, shape (C, row_size).
        count: Number of lesson rows, 1 to C.
        unit: Slots that move together, a divisor of row_size.
        offset: In [0, 1). Decides which streams get the rows that do not divide evenly.

    Returns:
        int64 array of shape (count, row_size).
    """
    columns = []
    for begin in range(0, lanes.shape[1], unit):
        block = lanes[:, begin : begin + unit]
        columns.append(block[quota_rows(block[:, 0], count, offset)])
    return np.concatenate(columns, axis=1)
