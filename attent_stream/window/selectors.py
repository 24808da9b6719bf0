"""Selectors: which candidates of a lane become lessons. Pure functions on numpy arrays.

``selector(scores, size, count, rng, temperature) -> positions``, where ``scores`` is a float array
of shape (size,), higher = teach it, or None for a selector outside of ``NEEDS_SCORES``;
``positions`` are ``count`` different positions in [0, size), ascending int64. A score that is not
finite is unknown: it is never preferred over a known one, and when fewer than ``count`` are known
the rest is drawn at random from the unknown. Samples that are known to have no label (``-inf``)
come last of all.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.empty import is_empty, is_known
from attent_stream.window.inclusion import INCLUSIONS, draw, proportional

Selector = Callable[[NDArray | None, int, int, np.random.Generator, float], NDArray[np.int64]]


def hard(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """The ``count`` highest scores; of equal ones the earlier (AtteNT, arXiv 2602.20461: the m
    largest residuals).

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
    """Gumbel top-k over standardised scores: a draw without replacement with log-weights ``z /
    temperature``.

    The scores are brought to mean 0 and standard deviation 1 first, so neither their unit nor their
    spread matters (the released code of arXiv 2602.20461 does not, and is close to random when
    losses spread little; it also applies the temperature to the noise as well, where it cancels).
    Scores without any spread select at random.

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

    def keys(known: NDArray) -> NDArray:
        return _soft_keys(_standardised(known), rng.gumbel(size=len(known)), temperature)

    check_temperature(temperature)
    return _top(_checked(scores, size, count), keys, count, rng)


def random(
    scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
) -> NDArray[np.int64]:
    """Any ``count``, all subsets equally likely: the control, which needs no scores and ignores
    any.

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
    check_count(size, count)
    return np.sort(rng.permutation(size)[:count]).astype(np.int64)


def _by_inclusion(
    design: Callable[[NDArray, int, float], NDArray[np.float64]], ordered: bool = False
) -> Selector:
    def selector(
        scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
    ) -> NDArray[np.int64]:
        check_temperature(temperature)
        checked = _checked(scores, size, count)
        return draw(
            design(checked, count, temperature), count, rng, along=checked if ordered else None
        )

    return selector


SELECTORS: dict[str, Selector] = {
    "hard": hard,
    "soft": soft,
    "random": random,
    "proportional": _by_inclusion(proportional, ordered=True),
    **{name: _by_inclusion(design) for name, design in INCLUSIONS.items()},
}
NEEDS_SCORES: frozenset[str] = frozenset(SELECTORS) - {"random"}


def select_each(
    select: str,
    scores: NDArray | None,
    lanes: int,
    size: int,
    count: int,
    rng_of: Callable[[int], np.random.Generator],
    temperature: float,
) -> NDArray[np.int64]:
    """``SELECTORS[select]`` of each of ``lanes`` alike lanes, ``scores`` of shape (lanes, size);
    shape (lanes, count).

    Where there is a function for all lanes together, it has those whose scores are all known, to
    the same result.
    """
    positions = np.empty((lanes, count), np.int64)
    alone = np.arange(lanes)
    if select in _TOGETHER:
        known = np.isfinite(scores).all(axis=1)
        together, alone = np.flatnonzero(known), np.flatnonzero(~known)
        keys = _TOGETHER[select](
            scores[together].astype(np.float64), map(rng_of, together), temperature
        )
        positions[together] = _top_of_each(keys, count)
    for lane in alone:
        lane_scores = None if scores is None else scores[lane]
        positions[lane] = SELECTORS[select](lane_scores, size, count, rng_of(lane), temperature)
    return positions


def _soft_together(
    scores: NDArray[np.float64], rngs: Iterable[np.random.Generator], temperature: float
) -> NDArray:
    noise = np.empty(scores.shape)
    for lane, rng in enumerate(rngs):
        noise[lane] = rng.gumbel(size=scores.shape[1])
    return _soft_keys(_standardised(scores), noise, temperature)


# (finite scores of shape (lanes, size), a generator a lane, temperature) -> keys of the same shape,
# the largest are selected
_TOGETHER: dict[str, Callable[[NDArray, Iterable[np.random.Generator], float], NDArray]] = {
    "hard": lambda scores, rngs, temperature: scores,
    "soft": _soft_together,
}


def _top_of_each(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Ascending positions of each row's ``count`` largest keys, of equal ones the earlier; without
    a sort.
    """
    lanes, size = keys.shape
    if not lanes or not count:
        return np.empty((lanes, count), np.int64)
    least = np.partition(keys, size - count, axis=1)[:, size - count, None]
    above, level = keys > least, keys == least
    room = count - np.count_nonzero(above, axis=1)[:, None]
    return np.nonzero(above | (level & (np.cumsum(level, axis=1) <= room)))[1].reshape(lanes, count)


def check_count(size: int, count: int) -> None:
    """Raises ValueError unless so many can be selected of so many."""
    if not 0 <= count <= size:
        raise ValueError(f"count must be between 0 and the {size} candidates, got {count}")


def _checked(scores: NDArray | None, size: int, count: int) -> NDArray[np.float64]:
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
    """Positions of the ``count`` largest keys of the known scores, filled from the unknown."""
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
    """Raises ValueError unless it is positive."""
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature!r}")


def _soft_keys(z: NDArray, noise: NDArray, temperature: float) -> NDArray:
    # Same order in both branches; each keeps its terms finite at its end of the range.
    return z + temperature * noise if temperature < 1 else z / temperature + noise


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` with mean 0 and standard deviation 1 along the last axis, or zeros where they have
    no spread.
    """
    if not values.size:
        return np.zeros_like(values)
    flat = values.min(axis=-1, keepdims=True) == values.max(axis=-1, keepdims=True)
    # In units of the range, so that neither huge nor tiny values overflow or vanish when squared.
    scaled = values / np.where(flat, 1.0, np.abs(values).max(axis=-1, keepdims=True))
    low, high = scaled.min(axis=-1, keepdims=True), scaled.max(axis=-1, keepdims=True)
    scaled = (scaled - low) / np.where(flat, 1.0, high - low)
    spread = np.where(flat, 1.0, scaled.std(axis=-1, keepdims=True))
    return np.where(flat, 0.0, (scaled - scaled.mean(axis=-1, keepdims=True)) / spread)
