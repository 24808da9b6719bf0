"""Cost against quality of one arm at several lengths, read by interpolation and never beyond its
ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INSIDE, WORSE, BETTER = "inside", "worse than all", "better than all"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a frontier says.

    Args:
        value: Interpolated, None outside.
        where: ``inside`` the frontier, or on which side of it.
    """

    value: float | None
    where: str


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Mean cost and loss of an arm's lengths.

    Args:
        costs: Ascending, of shape (lengths,).
        losses: Lower is better (the negative of what is better higher), of the same shape, made not
            to rise with the cost: what costs more and is worse is averaged with its neighbours
            (isotonic regression), as noise between lengths.
    """

    costs: NDArray[np.float64]
    losses: NDArray[np.float64]

    def cost_at(self, loss: float) -> Reading:
        """The cost at which the arm reaches a loss, linear between two lengths. Where several costs
        do, the smallest.
        """
        if loss > self.losses[0]:
            return Reading(value=None, where=WORSE)
        if loss < self.losses[-1]:
            return Reading(value=None, where=BETTER)
        right = int(np.argmax(self.losses <= loss))
        if right == 0 or self.losses[right] == loss:
            return Reading(value=float(self.costs[right]), where=INSIDE)
        a, b = self.losses[right - 1], self.losses[right]
        share = (a - loss) / (a - b)
        return Reading(
            value=float(
                self.costs[right - 1] + share * (self.costs[right] - self.costs[right - 1])
            ),
            where=INSIDE,
        )

    def loss_at(self, cost: float) -> Reading:
        """The loss that a cost buys, linear between two lengths."""
        if cost < self.costs[0]:
            return Reading(value=None, where=WORSE)
        if cost > self.costs[-1]:
            return Reading(value=None, where=BETTER)
        return Reading(value=float(np.interp(cost, self.costs, self.losses)), where=INSIDE)


def frontier(costs: Sequence[float], losses: Sequence[float]) -> Frontier:
    """A frontier of points in any order; raises ValueError for none, or for numbers that are not
    finite.
    """
    c, q = np.asarray(costs, np.float64), np.asarray(losses, np.float64)
    if (
        c.ndim != 1
        or c.shape != q.shape
        or not len(c)
        or not (np.isfinite(c).all() and np.isfinite(q).all())
    ):
        raise ValueError(
            f"expected as many finite costs as losses and at least one, received {costs} and "
            f"{losses}"
        )
    order = np.argsort(c, kind="stable")
    return Frontier(costs=c[order], losses=_not_rising(q[order]))


def _not_rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least-squares fit that never rises: pool adjacent violators."""
    blocks: list[list[float]] = []  # sum, count
    for value in values:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] < blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    return np.concatenate([np.full(int(count), total / count) for total, count in blocks])
