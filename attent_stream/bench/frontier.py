"""An arm's quality over cost, interpolated between its lengths and never extrapolated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INSIDE, WORSE, BETTER = "inside", "worse than all", "better than all"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A value read from a frontier.

    Args:
        value: The interpolated value, None outside the frontier.
        where: ``inside``, ``worse than all`` or ``better than all``.
    """

    value: float | None
    where: str


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Mean costs and losses of an arm's lengths.

    Args:
        costs: Ascending, shape (lengths,).
        losses: Not rising with the cost, shape (lengths,); lower is better. Isotonic regression
            averages noise between neighbouring lengths.
    """

    costs: NDArray[np.float64]
    losses: NDArray[np.float64]

    def cost_at(self, loss: float) -> Reading:
        """Interpolate the smallest cost at which the arm reaches a loss."""
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
        """Interpolate the loss at a cost."""
        if cost < self.costs[0]:
            return Reading(value=None, where=WORSE)
        if cost > self.costs[-1]:
            return Reading(value=None, where=BETTER)
        return Reading(value=float(np.interp(cost, self.costs, self.losses)), where=INSIDE)


def frontier(costs: Sequence[float], losses: Sequence[float]) -> Frontier:
    """Build a frontier from points in any order.

    Raises:
        ValueError: There are no points, or a number is not finite.
    """
    c, q = np.asarray(costs, np.float64), np.asarray(losses, np.float64)
    if (
        c.ndim != 1
        or c.shape != q.shape
        or not len(c)
        or not (np.isfinite(c).all() and np.isfinite(q).all())
    ):
        raise ValueError(
            f"expected as many finite costs as losses and at least one, got {costs} and {losses}"
        )
    order = np.argsort(c, kind="stable")
    return Frontier(costs=c[order], losses=_not_rising(q[order]))


def _not_rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares fit that never rises, by pooling adjacent violators."""
    blocks: list[list[float]] = []  # Sum and count.
    for value in values:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] < blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    return np.concatenate([np.full(int(count), total / count) for total, count in blocks])
