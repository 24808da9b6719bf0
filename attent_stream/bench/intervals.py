"""Bootstrap intervals over seeds."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXACT = 5  # seeds up to which all n^n resamples are taken, so that nothing is random
DRAWS = 4000
LEVEL = 0.95
UNDEFINED = 0.05  # share of resamples without a value beyond which there is no interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic over seeds.

    Args:
        value: Of all seeds, None where it is not defined.
        low, high: The interval, None where there is none: fewer than three seeds, or resamples
            without a value.
        undefined: Share of resamples without a value, in [0, 1].
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    undefined: float = 0.0

    @property
    def interval(self) -> list[float] | None:
        """[low, high], or None."""
        return None if self.low is None else [self.low, self.high]


def resamples(seeds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of seeds drawn with replacement, shape (draws, seeds): all of them up to ``EXACT``
    seeds.
    """
    if seeds <= EXACT:
        return np.array(list(itertools.product(range(seeds), repeat=seeds)), dtype=np.int64)
    return rng.integers(0, seeds, (DRAWS, seeds))


def bootstrap(
    statistic: Callable[[Sequence[int]], float | None], seeds: int, seed: int = 0
) -> Estimate:
    """The percentile bootstrap (Efron, 1979) of a statistic over seeds, which are resampled
    together for all arms: a seed means the same weights and order in each. With three seeds its
    ends are close to the smallest and largest seed's.

    Args:
        statistic: Positions of seeds, with repetitions -> value, None where it is not defined.
        seeds: Their number.
        seed: Of the draws, where they are drawn.
    """
    value = statistic(range(seeds))
    if seeds < 3:
        return Estimate(value=value)
    drawn = [statistic(row) for row in resamples(seeds, np.random.default_rng(seed))]
    known = [x for x in drawn if x is not None]
    undefined = 1 - len(known) / len(drawn)
    if value is None or undefined > UNDEFINED:
        return Estimate(value=value, undefined=undefined)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high), undefined=undefined)
