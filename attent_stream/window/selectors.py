"""Selectors, which choose the lessons of a lane. Pure functions on numpy arrays.

A selector is ``(scores, size, count, rng, temperature) -> positions``:

- ``scores``: Float of shape (size,), higher is more important; None if the selector needs none.
- ``positions``: ``count`` different positions in [0, size), ascending int64. A selector may return
  ``(positions, weights)`` instead, with weights of the lessons' losses, floats of shape (count,).

A score that is not finite is unknown, and known scores are preferred. If fewer than ``count`` are
known, the rest is drawn at random from the unknown. Samples without a label (``-inf``) come last.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.empty import is_empty, is_known
from attent_stream.base.registry import Registry

Selected = NDArray[np.int64] | tuple[NDArray[np.int64], NDArray[np.floating]]
Choose = Callable[[NDArray | None, int, int, np.random.Generator, float], Selected]
# (finite scores of shape (lanes, size), a generator for each lane, temperature) -> keys of the same
# shape; the largest are selected
Keys = Callable[[NDArray, Iterable[np.random.Generator], float], NDArray]


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A selector and what it needs.

    Args:
        choose: Selects from one lane.
        needs_scores: Whether it needs scores.
        keys: Selects from many lanes at once if all scores are known, with the same result as
            ``choose``; None if this is not supported.
        teacher: Class of its teacher, as ``package.module:Class``; None for ``Teacher``.
        checked: Whether the results of ``choose`` are checked, as for a user's function.
    """

    choose: Choose
    needs_scores: bool = True
    keys: Keys | None = None
    teacher: str | None = None
    checked: bool = False


def hard(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Select the ``count`` highest scores, and among equal scores the earlier.

    AtteNT (arXiv 2602.20461) selects the m largest residuals in this way.

    Args:
        scores: Float of shape (size,).
        size: Candidates in the lane.
        count: Number to select.
        rng: Used only if fewer than ``count`` scores are finite.
        temperature: Unused.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: Scores are missing or have the wrong shape, or ``count`` is not in [0, size].
    """
    return _top(checked_scores(scores, size, count), lambda known: known, count, rng)


def soft(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Select by Gumbel top-k: draw without replacement with log-weights ``z / temperature``.

    ``z`` are the scores, standardised to mean 0 and standard deviation 1. So neither their unit nor
    their spread matters. Equal scores select at random. The released code of arXiv 2602.20461 does
    not standardise, so it is nearly random if losses have little spread, and its temperature scales
    the noise too, so it cancels.

    Args:
        scores: Float of shape (size,).
        size: Candidates in the lane.
        count: Number to select.
        rng: Draws the noise.
        temperature: Positive. ``hard`` in the limit of 0, ``random`` in the limit of infinity.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: See ``hard``, or ``temperature`` is not positive.
    """

    def keys(known: NDArray) -> NDArray:
        return _soft_keys(_standardised(known), rng.gumbel(size=len(known)), temperature)

    check_temperature(temperature)
    return _top(checked_scores(scores, size, count), keys, count, rng)


def random(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Select a uniformly random subset: the control, which ignores scores.

    Args:
        scores: Unused.
        size: Candidates in the lane.
        count: Number to select.
        rng: Draws the subset.
        temperature: Unused.

    Returns:
        Ascending int64 positions, shape (count,).

    Raises:
        ValueError: ``count`` is not in [0, size].
    """
    check_count(size, count)
    return np.sort(rng.permutation(size)[:count]).astype(np.int64)


def _soft_keys_of_lanes(
    scores: NDArray[np.float64], rngs: Iterable[np.random.Generator], temperature: float
) -> NDArray:
    noise = np.empty(scores.shape)
    for lane, rng in enumerate(rngs):
        noise[lane] = rng.gumbel(size=scores.shape[1])
    return _soft_keys(_standardised(scores), noise, temperature)


SELECTORS: Registry[Selector | Choose] = Registry(
    "select",
    {
        "hard": Selector(choose=hard, keys=lambda scores, rngs, temperature: scores),
        "soft": Selector(choose=soft, keys=_soft_keys_of_lanes),
        "random": Selector(choose=random, needs_scores=False),
    },
)


def selector(name: str) -> Selector:
    """Return the selector of this name. A user's function needs scores and is checked.

    Raises:
        ValueError: The name is unknown.
    """
    found = SELECTORS.get(name)
    return found if isinstance(found, Selector) else Selector(choose=found, checked=True)


def select_each(
    chosen: Selector,
    scores: NDArray | None,
    lanes: int,
    size: int,
    count: int,
    rng_of: Callable[[int], np.random.Generator],
    temperature: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Select from several lanes of one size.

    Args:
        chosen: The selector.
        scores: Float of shape (lanes, size), or None.
        lanes: Number of lanes.
        size: Candidates in a lane.
        count: Lessons in a lane.
        rng_of: Returns the generator of a lane.
        temperature: See the selector.

    Returns:
        Positions and weights, both of shape (lanes, count).

    Raises:
        ValueError: A user's selector returned an invalid result.
    """
    positions, weights = np.empty((lanes, count), np.int64), np.ones((lanes, count))
    alone = np.arange(lanes)
    if chosen.keys is not None and scores is not None:
        known = np.isfinite(scores).all(axis=1)
        at_once, alone = np.flatnonzero(known), np.flatnonzero(~known)
        keys = chosen.keys(scores[at_once].astype(np.float64), map(rng_of, at_once), temperature)
        positions[at_once] = _top_of_each(keys, count)
    for lane in alone:
        lane_scores = None if scores is None else scores[lane]
        found = chosen.choose(lane_scores, size, count, rng_of(lane), temperature)
        if chosen.checked:
            found = _checked_selection(found, size, count)
        if isinstance(found, tuple):
            positions[lane], weights[lane] = found
        else:
            positions[lane] = found
    return positions, weights


def _checked_selection(found: Selected, size: int, count: int) -> tuple[NDArray, NDArray]:
    positions, weights = found if isinstance(found, tuple) else (found, np.ones(count))
    positions, weights = np.asarray(positions), np.asarray(weights)
    good = positions.shape == weights.shape == (count,) and positions.dtype.kind in "iu"
    good = good and len(np.unique(positions)) == count
    if not good or not ((positions >= 0) & (positions < size)).all():
        raise ValueError(
            f"select: expected {count} different positions below {size}, and as many weights if "
            f"any, got {positions!r:.200}"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"select: expected finite weights of at least 0, got {weights!r:.200}")
    order = np.argsort(positions, kind="stable")
    return positions[order], weights[order]


def _top_of_each(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return ascending positions of each row's ``count`` largest keys, the earlier among equals."""
    lanes, size = keys.shape
    if not lanes or not count:
        return np.empty((lanes, count), np.int64)
    least = np.partition(keys, size - count, axis=1)[:, size - count, None]
    above, level = keys > least, keys == least
    room = count - np.count_nonzero(above, axis=1)[:, None]
    return np.nonzero(above | (level & (np.cumsum(level, axis=1) <= room)))[1].reshape(lanes, count)


def check_count(size: int, count: int) -> None:
    """Raise ValueError if ``count`` is not in [0, size]."""
    if not 0 <= count <= size:
        raise ValueError(f"count must be between 0 and the {size} candidates, got {count}")


def checked_scores(scores: NDArray | None, size: int, count: int) -> NDArray[np.float64]:
    """Return scores in float64; raise ValueError if their shape or ``count`` is wrong."""
    check_count(size, count)
    if scores is None or scores.shape != (size,):
        raise ValueError(
            f"scores must have shape ({size},), got {None if scores is None else scores.shape}"
        )
    return scores.astype(np.float64)


def _top(
    scores: NDArray[np.float64],
    keys: Callable[[NDArray], NDArray],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Select the ``count`` largest keys of the known scores, and fill up from the unknown."""
    finite = np.isfinite(scores)
    known = np.flatnonzero(finite)
    best = known[np.argsort(-keys(scores[known]), kind="stable")[:count]]
    chosen = [best]
    for rest in (np.flatnonzero(~is_known(scores)), np.flatnonzero(is_empty(scores))):
        missing = count - sum(map(len, chosen))
        if missing > 0:
            chosen.append(rng.permutation(rest)[:missing])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def check_temperature(temperature: float) -> None:
    """Raise ValueError if ``temperature`` is not positive."""
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature!r}")


def _soft_keys(z: NDArray, noise: NDArray, temperature: float) -> NDArray:
    # Both have the same order. Each is finite at its end of the range.
    return z + temperature * noise if temperature < 1 else z / temperature + noise


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to mean 0 and standard deviation 1 along the last axis; equal values become 0."""
    if not values.size:
        return np.zeros_like(values)
    flat = values.min(axis=-1, keepdims=True) == values.max(axis=-1, keepdims=True)
    # Values in units of the range neither overflow nor vanish when squared.
    scaled = values / np.where(flat, 1.0, np.abs(values).max(axis=-1, keepdims=True))
    low, high = scaled.min(axis=-1, keepdims=True), scaled.max(axis=-1, keepdims=True)
    scaled = (scaled - low) / np.where(flat, 1.0, high - low)
    spread = np.where(flat, 1.0, scaled.std(axis=-1, keepdims=True))
    return np.where(flat, 0.0, (scaled - scaled.mean(axis=-1, keepdims=True)) / spread)
