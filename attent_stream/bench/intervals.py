"""Bootstrap intervals over seeds."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXACT = 5  # The most seeds for which all n^n resamples are taken.
DRAWS = 4000
LEVEL = 0.95
UNDEFINED = 0.05  # The largest share of resamples without a value that allows an interval.


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic over seeds.

    Args:
        value: The value of all seeds, None if undefined.
        low, high: The interval. None: fewer than three seeds, or too many resamples without a
            value.
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
    """Draw indices of seeds with replacement, shape (draws, seeds); all up to ``EXACT`` seeds."""
    if seeds <= EXACT:
        return np.array(list(itertools.product(range(seeds), repeat=seeds)), dtype=np.int64)
    return rng.integers(0, seeds, (DRAWS, seeds))


def bootstrap(
    statistic: Callable[[Sequence[int]], float | None], seeds: int, seed: int = 0
) -> Estimate:
    """Estimate a statistic over seeds with the percentile bootstrap (Efron, 1979).

    A resample has the same seeds in all arms, because a seed fixes weights and order. With three
    seeds the interval is close to their range.

    Args:
        statistic: Maps indices of seeds, with repetitions, to a value, or None if undefined.
        seeds: Number of seeds.
        seed: Seed of the resamples.
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
