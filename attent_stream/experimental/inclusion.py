"""Inclusion probabilities: how likely each candidate is to become a lesson, and the weight that
makes up for it.

A design gives every candidate of a lane a probability ``pi`` in [0, 1] with ``sum(pi) = count``;
``draw`` selects exactly ``count`` of them with these probabilities; and a lesson of weight ``count
/ (size * pi)`` makes the mean over the lessons an unbiased estimate of the mean over the candidates
(Horvitz and Thompson, 1952). Pure functions on numpy arrays.

A score that is not finite is unknown: its candidate is drawn only where too few others are known,
and weighs 1. A sample that is known to have no label (``-inf``) is drawn only where nothing else is
left.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.empty import is_empty, is_known
from attent_stream.window.selectors import Choose, Selector, check_temperature, checked_scores

_MOST_PRUNED = 0.75  # of the easy: beyond it the few that are left weigh more than 4
_ROUNDING = 1e-9  # of sums of probabilities
_UNIFORM = 0.2  # share of the uniform in ``unbiased``: no weight exceeds 5


def prune(scores: NDArray[np.floating], count: int, temperature: float) -> NDArray[np.float64]:
    """The easy, below the mean score, are dropped at random, all alike, and the rest is kept
    (InfoBatch, Qin et al., ICLR 2024, arXiv 2303.04947, equations 3 and 4; there the share dropped
    of the easy is given, here the count).

    Where more than three quarters of the easy would have to go, more of the lowest scores count as
    easy.

    Args:
        scores: Float of shape (size,).
        count: How many are selected, in [0, size].
        temperature: Unused.

    Returns:
        Float64 of shape (size,), of sum ``count``.
    """

    def of_known(known: NDArray, kept: int) -> NDArray:
        dropped = len(known) - kept
        if dropped == 0:
            return np.ones(len(known))
        easy = int((known < known.mean()).sum())
        easy = min(len(known), max(easy, int(np.ceil(dropped / _MOST_PRUNED))))
        pi = np.ones(len(known))
        pi[np.argsort(known, kind="stable")[:easy]] = 1 - dropped / easy
        return pi

    return _with_unknown(scores, count, of_known)


def unbiased(scores: NDArray[np.floating], count: int, temperature: float) -> NDArray[np.float64]:
    """In proportion to the score, mixed with the uniform: the least variance where scores are
    gradient norms (Zhao and Zhang, ICML 2015, arXiv 1401.2753; Katharopoulos and Fleuret, ICML
    2018, arXiv 1803.00942).

    Args:
        scores: Float of shape (size,); what is below 0 counts as 0.
        count: How many are selected, in [0, size].
        temperature: In proportion to ``score ** (1 / temperature)``: towards infinity all are
            alike; positive.

    Returns:
        Float64 of shape (size,), of sum ``count``.
    """

    def of_known(known: NDArray, kept: int) -> NDArray:
        share = (1 - _UNIFORM) * _shares(known, temperature) + _UNIFORM / len(known)
        return _capped(share, kept)

    return _with_unknown(scores, count, of_known)


def proportional(
    scores: NDArray[np.floating], count: int, temperature: float
) -> NDArray[np.float64]:
    """In proportion to the score, and to nothing else: for lessons that are meant to be another mix
    than the candidates.

    Args:
        scores: Float of shape (size,); what is below 0 counts as 0.
        count: How many are selected, in [0, size].
        temperature: As ``unbiased``.

    Returns:
        Float64 of shape (size,), of sum ``count``.
    """
    return _with_unknown(
        scores, count, lambda known, kept: _capped(_shares(known, temperature), kept)
    )


# Designs whose lessons are weighted: name -> (scores, count, temperature) -> probabilities
INCLUSIONS: dict[str, Callable[[NDArray, int, float], NDArray[np.float64]]] = {
    "prune": prune,
    "unbiased": unbiased,
}


def draw(
    pi: NDArray[np.floating],
    count: int,
    rng: np.random.Generator,
    along: NDArray[np.floating] | None = None,
) -> NDArray[np.int64]:
    """Select ``count`` with these probabilities: systematic sampling (Madow, 1949).

    Args:
        pi: Probabilities of shape (size,), of sum ``count``.
        count: How many.
        rng: Drawn from for the order and the offset.
        along: Values in whose order the candidates stand, so that those of one value get their
            expected number but for rounding; of shape (size,). None, and among equal ones: random.

    Returns:
        Ascending int64 positions, shape (count,).
    """
    sure = pi > 1 - _ROUNDING
    order = rng.permutation(np.flatnonzero(~sure))
    if along is not None:
        order = order[np.argsort(along[order], kind="stable")]
    drawn = count - int(sure.sum())
    chosen = np.flatnonzero(sure)
    if drawn > 0:
        # Each candidate is an interval as long as its probability; points one apart fall into
        # ``drawn`` different ones.
        edges = np.cumsum(pi[order])
        points = (np.arange(drawn) + rng.random()) * (edges[-1] / drawn)
        chosen = np.concatenate(
            [
                chosen,
                order[np.minimum(np.searchsorted(edges, points, side="right"), len(order) - 1)],
            ]
        )
    return np.sort(chosen).astype(np.int64)


def weights(
    pi: NDArray[np.floating], scores: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """Weight of each candidate, should it be drawn: shape (size,), 1 for an unknown score and where
    ``pi`` is 0.

    Args:
        pi: Probabilities of shape (size,).
        scores: Of the same shape; only which of them are finite is looked at.
        count: How many are drawn.
    """
    known = np.isfinite(scores) & (pi > 0)
    expected = pi[known].sum()  # ``count``, but for the unknown
    out = np.ones(len(pi))
    out[known] = expected / (max(1, np.isfinite(scores).sum()) * pi[known])
    return out


def moment_gain(scores: NDArray[np.floating], pi: NDArray[np.floating]) -> float:
    """How much smaller the weighted lessons' gradients are in the second moment than those of as
    many drawn uniformly, if the scores are in proportion to gradient norms: the predicted speed-up
    of a step, before the cost of scoring (Katharopoulos and Fleuret, ICML 2018, equation 14, for
    draws without replacement).

    Args:
        scores: Shape (size,); the finite ones count.
        pi: Probabilities of the same shape.

    Returns:
        ``mean(g^2) / (keep * mean(g^2 / pi))``, above 0; 1 for uniform probabilities and where
        nothing is known.
    """
    known = np.isfinite(scores) & (pi > 0)
    squares, chances = np.square(scores[known].astype(np.float64)), pi[known]
    weighted = chances.mean() * (squares / chances).mean() if known.any() else 0.0
    return float(squares.mean() / weighted) if weighted > 0 else 1.0


def _shares(known: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Of sum 1, in proportion to ``known ** (1 / temperature)``; all alike where none is
    above 0.
    """
    largest = known.max(initial=0.0)
    share = (
        np.clip(known / largest, 0.0, 1.0) ** (1 / temperature)
        if largest > 0
        else np.ones(len(known))
    )
    return share / share.sum()


def _capped(share: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """``min(1, c * share)`` with the ``c`` that makes the sum ``count``."""
    pi = np.zeros(len(share))
    sure = np.zeros(len(share), bool)
    while True:
        rest = count - int(sure.sum())
        some = share[~sure].sum()
        if rest <= 0 or sure.all():
            pi[~sure] = 0.0
        else:  # those without any share are alike, and come in where no others are left
            pi[~sure] = rest * (share[~sure] / some if some > 0 else 1 / (~sure).sum())
        pi[sure] = 1.0
        over = ~sure & (pi >= 1.0)
        if not over.any():
            return pi
        sure |= over


def _with_unknown(
    scores: NDArray[np.floating], count: int, of_known: Callable[[NDArray, int], NDArray]
) -> NDArray[np.float64]:
    known = np.isfinite(scores)
    pi = np.zeros(len(scores))
    kept = min(count, int(known.sum()))
    if kept:
        pi[known] = of_known(scores[known].astype(np.float64), kept)
    for rest in (~is_known(scores), is_empty(scores)):
        missing = min(count - kept, int(rest.sum()))
        if missing > 0:
            pi[rest] = missing / rest.sum()
            kept += missing
    return pi


def _drawn(
    design: Callable[[NDArray, int, float], NDArray[np.float64]], *, weighted: bool, ordered: bool
) -> Choose:
    def choose(
        scores: NDArray | None, size: int, count: int, rng: np.random.Generator, temperature: float
    ) -> NDArray[np.int64] | tuple[NDArray[np.int64], NDArray[np.float64]]:
        check_temperature(temperature)
        known = checked_scores(scores, size, count)
        pi = design(known, count, temperature)
        positions = draw(pi, count, rng, along=known if ordered else None)
        return (positions, weights(pi, known, count)[positions]) if weighted else positions

    return choose


PRUNE = Selector(choose=_drawn(prune, weighted=True, ordered=False))
UNBIASED = Selector(choose=_drawn(unbiased, weighted=True, ordered=False))
PROPORTIONAL = Selector(choose=_drawn(proportional, weighted=False, ordered=True))
