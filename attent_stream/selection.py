"""Selection: which of a window's candidates become lessons. Pure functions on numpy arrays.

A selector looks at one lane: ``selector(scores, size, count, rng, temperature) -> positions``, where
``scores`` is a float array of shape (size,), higher = teach it, or None for a selector outside of
``NEEDS_SCORES``; ``positions`` are ``count`` different positions in [0, size), ascending int64. A score that
is not finite is unknown: it is never preferred over a known one, and when fewer than ``count`` are known the
rest is drawn at random from the unknown.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Selector = Callable[[NDArray | None, int, int, np.random.Generator, float], NDArray[np.int64]]


def hard(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """The ``count`` highest scores; of equal ones the earlier (AtteNT, arXiv 2602.20461: the m largest
    residuals).

    Args:
        scores: Float of shape (size,).
        size: Candidates in the lane.
        count: How many to select.
        rng: Only drawn from when fewer than ``count`` scores are finite.
        temperature: Unused.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: No scores, scores of another shape, or a count outside of [0, size].
    """
    return _top(_checked(scores, size, count), lambda known: known, count, rng)


def soft(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Gumbel top-k over standardised scores: a draw without replacement with log-weights ``z / temperature``.

    The scores are brought to mean 0 and standard deviation 1 first, so neither their unit nor their spread
    matters (the released code of arXiv 2602.20461 does not, and is close to random when losses spread little;
    it also applies the temperature to the noise as well, where it cancels). Scores without any spread select
    at random.

    Args:
        scores: Float of shape (size,).
        size: Candidates in the lane.
        count: How many to select.
        rng: Drawn from for the noise.
        temperature: Towards 0 is ``hard``, towards infinity ``random``; positive.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: As ``hard``, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature!r}")

    def keys(known: NDArray) -> NDArray:
        z, noise = _standardised(known), rng.gumbel(size=len(known))
        # Same order in both branches; each keeps its terms finite at its end of the range.
        return z + temperature * noise if temperature < 1 else z / temperature + noise

    return _top(_checked(scores, size, count), keys, count, rng)


def random(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Any ``count``, all subsets equally likely: the control, which needs no scores and ignores any.

    Args:
        scores: Unused.
        size: Candidates in the lane.
        count: How many to select.
        rng: Drawn from.
        temperature: Unused.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: A count outside of [0, size].
    """
    _check_count(size, count)
    return np.sort(rng.permutation(size)[:count]).astype(np.int64)


SELECTORS: dict[str, Selector] = {"hard": hard, "soft": soft, "random": random}
NEEDS_SCORES: frozenset[str] = frozenset({"hard", "soft"})


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
) -> NDArray[np.int64]:
    """Select a window's lessons lane by lane and refill the slots of each lane in stream order.

    Args:
        scores: Float of shape (C, S), one for each candidate, or None if ``select`` is not in
            ``NEEDS_SCORES``.
        lanes: Lane of each candidate, non-negative ints of shape (C, S).
        wanted: Lane of each slot of the lessons, shape (L, S); as many candidates of a lane are selected as
            it has slots here.
        select: Name of a selector.
        temperature: Of ``soft``.
        seed: With epoch, window and lane the seed of a lane's draw:
            ``default_rng([seed, epoch, window, lane])``.
        epoch: See ``seed``.
        window: See ``seed``.

    Returns:
        Flat positions into the ``C * S`` candidates, int64 of shape (L, S). Keeping everything (``wanted``
        equal to ``lanes``) gives ``arange(C * S)``, whatever the scores.

    Raises:
        ValueError: An unknown selector, missing or misshapen scores, or a lane with fewer candidates than
        slots.
    """
    if select not in SELECTORS:
        raise ValueError(f"select must be one of {', '.join(SELECTORS)}, got {select!r}")
    if scores is None and select in NEEDS_SCORES:
        raise ValueError(f"select={select!r} needs scores of shape {lanes.shape}, got None")
    if scores is not None and scores.shape != lanes.shape:
        raise ValueError(f"scores must have the candidates' shape {lanes.shape}, got {scores.shape}")
    if np.array_equal(lanes, wanted):
        return np.arange(lanes.size, dtype=np.int64).reshape(lanes.shape)

    flat_scores = None if scores is None else scores.reshape(-1)
    candidates = _by_lane(lanes)
    none = np.empty(0, np.int64)
    selected = np.empty(wanted.size, np.int64)
    for lane, slots in _by_lane(wanted).items():
        members = candidates.get(lane, none)
        if len(members) < len(slots):
            raise ValueError(f"lane {lane} has {len(members)} candidates for {len(slots)} lesson slots")
        rng = np.random.default_rng([seed, epoch, window, lane])
        lane_scores = None if flat_scores is None else flat_scores[members]
        selected[slots] = members[SELECTORS[select](lane_scores, len(members), len(slots), rng, temperature)]
    return selected.reshape(wanted.shape)


def quota_rows(keys: NDArray[np.integer], count: int, u: float) -> NDArray[np.int64]:
    """Choose rows so that every key keeps its share: systematic sampling over the rows sorted by key.

    Every row is chosen with probability ``count / C`` over a uniform ``u``; a key of ``W`` rows gets the
    floor or the ceiling of ``count * W / C``; the chosen rows of a key are evenly spread over its rows.

    Args:
        keys: Key of each row, ints of shape (C,).
        count: How many rows to choose.
        u: Offset of the systematic sample, in [0, 1).

    Returns:
        Ascending row indices, int64 of shape (count,).

    Raises:
        ValueError: A count outside of [0, C] or an offset outside of [0, 1).
    """
    rows = len(keys)
    _check_count(rows, count)
    if not 0 <= u < 1:
        raise ValueError(f"u must be in [0, 1), got {u!r}")
    # The points are u, u + 1, ... on an axis where each row is count / rows long. In integers, where u is
    # rounded down to a multiple of 1 / rows: rounding of the shares could otherwise give a key one row too
    # many.
    offset = min(int(u * rows), max(rows - 1, 0))
    points = -((offset - count * np.arange(rows + 1, dtype=np.int64)) // max(rows, 1))
    chosen = np.flatnonzero(np.diff(points))
    return np.sort(np.argsort(keys, kind="stable")[chosen]).astype(np.int64)


def _by_lane(lanes: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """Flat positions of every lane, ascending."""
    flat = lanes.reshape(-1)
    if not flat.size:
        return {}
    if flat.min() < 0:
        raise ValueError(f"lanes must be non-negative, got {flat.min()}")
    order = np.argsort(flat, kind="stable")
    labels, starts = np.unique(flat[order], return_index=True)
    return dict(zip(labels.tolist(), np.split(order, starts[1:]), strict=True))


def _check_count(size: int, count: int) -> None:
    if not 0 <= count <= size:
        raise ValueError(f"count must be between 0 and the {size} candidates, got {count}")


def _checked(scores: NDArray | None, size: int, count: int) -> NDArray[np.float64]:
    _check_count(size, count)
    if scores is None or scores.shape != (size,):
        raise ValueError(f"scores must have shape ({size},), got {None if scores is None else scores.shape}")
    return scores.astype(np.float64)


def _top(
    scores: NDArray[np.float64], keys: Callable[[NDArray], NDArray], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of the ``count`` largest keys of the known scores, filled from the unknown."""
    finite = np.isfinite(scores)
    known = np.flatnonzero(finite)
    best = known[np.argsort(-keys(scores[known]), kind="stable")[:count]]
    unknown = np.flatnonzero(~finite)
    fill = rng.permutation(unknown)[: count - len(best)] if len(best) < count else unknown[:0]
    return np.sort(np.concatenate([best, fill])).astype(np.int64)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` with mean 0 and standard deviation 1, or zeros if they have no spread."""
    if not values.size or values.min() == values.max():
        return np.zeros_like(values)
    # In units of the range, so that neither huge nor tiny values overflow or vanish when squared.
    scaled = values / np.abs(values).max()
    scaled = (scaled - scaled.min()) / (scaled.max() - scaled.min())
    return (scaled - scaled.mean()) / scaled.std()
