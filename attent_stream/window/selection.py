"""Selection of a window's lessons, lane by lane. Pure functions on numpy arrays."""

import numpy as np
from numpy.typing import NDArray

from attent_stream.window.selectors import check_count, select_each, selector


def select_lanes(
    scores: NDArray | None,
    lanes: NDArray[np.integer],
    wanted: NDArray[np.integer],
    *,
    select: str,
    temperature: float,
    seed: int,
    epoch: int,
    window: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Select a window's lessons lane by lane, and fill each lane's slots in stream order.

    Args:
        scores: Score of each candidate, float of shape (C, S); None if the selector needs none.
        lanes: Lane of each candidate, non-negative ints of shape (C, S).
        wanted: Lane of each lesson slot, shape (L, S). A lane gets as many lessons as slots.
        select: Name of a selector.
        temperature: See the selector.
        seed: Seeds each lane's draw, as ``default_rng([seed, epoch, window, lane])``.
        epoch: See ``seed``.
        window: See ``seed``.

    Returns:
        Flat positions into the ``C * S`` candidates, int64 of shape (L, S). And weights, float32 of
        shape (L, S), rounded to float16 as in checkpoints. If ``wanted`` equals ``lanes``,
        everything is kept: ``arange(C * S)`` and ones.

    Raises:
        ValueError: The selector is unknown, scores are missing or have the wrong shape, or a lane
            has fewer candidates than slots.
    """
    chosen = selector(select)
    if scores is None and chosen.needs_scores:
        raise ValueError(f"select={select!r} needs scores of shape {lanes.shape}, got None")
    if scores is not None and scores.shape != lanes.shape:
        raise ValueError(
            f"scores must have the candidates' shape {lanes.shape}, got {scores.shape}"
        )
    if np.array_equal(lanes, wanted):
        every = np.arange(lanes.size, dtype=np.int64).reshape(lanes.shape)
        return every, np.ones(lanes.shape, np.float32)

    flat_scores = None if scores is None else scores.reshape(-1)
    labels, starts, sizes, order = by_lane(lanes)
    lessons, slot_starts, counts, slot_order = by_lane(wanted)
    found = np.searchsorted(labels, lessons)
    known = found < len(labels)
    known[known] = labels[found[known]] == lessons[known]
    available = np.zeros(len(lessons), np.int64)
    available[known] = sizes[found[known]]
    short = np.flatnonzero(available < counts)
    if len(short):
        lane, has, asked = (int(part[short[0]]) for part in (lessons, available, counts))
        raise ValueError(f"expected at least {asked} candidates in lane {lane}, got {has}")
    selected, weights = np.empty(wanted.size, np.int64), np.empty(wanted.size, np.float32)
    # Lanes of equal sizes are selected together, as there may be thousands.
    alike = np.stack([available, counts], axis=1)
    kinds, kind_of = np.unique(alike, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    for kind, (size, count) in enumerate(kinds.tolist()):
        which = np.flatnonzero(kind_of == kind)
        members = order[starts[found[which], None] + np.arange(size)]
        slots = slot_order[slot_starts[which, None] + np.arange(count)]
        names = lessons[which].tolist()
        lane_scores = None if flat_scores is None else flat_scores[members]

        def rng_of(lane: int, names: list[int] = names) -> np.random.Generator:
            return np.random.default_rng([seed, epoch, window, names[lane]])

        positions, weights[slots] = select_each(
            chosen, lane_scores, len(which), size, count, rng_of, temperature
        )
        selected[slots] = np.take_along_axis(members, positions, axis=1)
    exact = weights.astype(np.float16).astype(np.float32)
    return selected.reshape(wanted.shape), exact.reshape(wanted.shape)


def below_ceiling(scores: NDArray, lanes: NDArray[np.integer], ceiling: float) -> NDArray:
    """Replace the highest scores of each lane by NaN, as they are likely noise.

    Args:
        scores: Float of shape (C, S).
        lanes: Lane of each score, non-negative ints of shape (C, S).
        ceiling: Share of a lane's finite scores to replace, rounded down, in [0, 1). Among equal
            scores the later are replaced first.

    Returns:
        ``scores`` itself if ``ceiling`` is 0, else a copy.
    """
    if ceiling == 0:
        return scores
    flat = scores.reshape(-1).astype(np.float64)
    _, starts, sizes, members = by_lane(lanes)
    lane = np.repeat(np.arange(len(starts)), sizes)
    known = np.isfinite(flat[members])
    members, lane = members[known], lane[known]
    # A stable sort keeps equal scores in order.
    members = members[np.lexsort((flat[members], lane))]
    counts = np.bincount(lane, minlength=len(starts))
    # Rank from a lane's highest score, which has 1.
    rank = np.repeat(np.cumsum(counts), counts) - np.arange(len(members))
    out = scores.reshape(-1).copy()
    out[members[rank <= np.repeat(np.floor(ceiling * counts + 1e-9), counts)]] = np.nan
    return out.reshape(scores.shape)


def quota_rows(keys: NDArray[np.integer], count: int, u: float) -> NDArray[np.int64]:
    """Choose rows so that every key keeps its share, by systematic sampling of rows sorted by key.

    For a uniform ``u`` every row is chosen with probability ``count / C``. A key of ``W`` rows gets
    the floor or the ceiling of ``count * W / C``, evenly spread over its rows.

    Args:
        keys: Key of each row, ints of shape (C,).
        count: Number of rows to choose.
        u: Offset of the systematic sample, in [0, 1).

    Returns:
        Ascending row indices, int64 of shape (count,).

    Raises:
        ValueError: ``count`` is not in [0, C], or ``u`` is not in [0, 1).
    """
    rows = len(keys)
    check_count(rows, count)
    if not 0 <= u < 1:
        raise ValueError(f"u must be in [0, 1), got {u!r}")
    # The points are u, u + 1, ... on an axis on which each row has length count / rows. Integers
    # avoid rounding errors, which could give a key one row too many. So u is rounded down to a
    # multiple of 1 / rows.
    offset = min(int(u * rows), max(rows - 1, 0))
    points = -((offset - count * np.arange(rows + 1, dtype=np.int64)) // max(rows, 1))
    chosen = np.flatnonzero(np.diff(points))
    return np.sort(np.argsort(keys, kind="stable")[chosen]).astype(np.int64)


def by_lane(lanes: NDArray[np.integer]) -> tuple[NDArray, NDArray, NDArray, NDArray[np.int64]]:
    """Sort flat positions by lane, ascending within a lane.

    Returns:
        Each lane's label, its start and its size in the sorted positions, and these positions.
    """
    flat = lanes.reshape(-1)
    if flat.size and flat.min() < 0:
        raise ValueError(f"lanes must be non-negative, got {flat.min()}")
    if flat.size and flat.max() < 2**16:
        flat = flat.astype(np.uint16)  # numpy uses a radix sort, 10 times as fast as for int64
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1)) if flat.size else np.empty(0, np.int64)
    return ordered[starts].astype(np.int64), starts, np.diff(starts, append=flat.size), order
