"""How fast each stream is being learnt: a ledger that keeps how the streams' training losses fall,
in six numbers a stream.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.memory.ledger import Ledger, check_state, groups_of
from attent_stream.memory.open_ledger import Request
from attent_stream.score.recipe import Recipe

_KIND = "stream, as progress"  # in a state
# A loss recorded after n' samples weighs (n' / n) ** 2 after n: the last third counts for most
_FORGET = 2
# Variance of log n from which on a slope is believed: a growth of n by about a half
_LEAST_SPREAD = 0.02
# Of the mean of all streams: nothing is left away for good, or it would never be known that it has
# become worth it
_FLOOR = 0.1


class ProgressLedger:
    """The score of a sample is its stream's slope -dL / d log n: how much a further share of
    training lowers the stream's loss L.

    Where the loss of stream k is e_k + b_k n_k ** -a_k, the mean of all streams' losses is least
    for a given number of samples if each stream's share is in proportion to a_k b_k n_k ** -a_k,
    which is this slope: the learning potential of Adaptive Data Optimization (Jiang et al., ICLR
    2025, arXiv 2410.11820, section 3), here by a weighted regression of the recorded losses on the
    logarithm of all samples trained on, instead of a fitted power law, and without their credit by
    share.

    Args:
        starts: First sample id of each stream, ascending from 0, shape (K,).
        num_samples: Samples in the data set.
    """

    def __init__(self, starts: NDArray[np.integer], num_samples: int) -> None:
        self._starts = np.asarray(starts, np.int64)
        self._samples = num_samples
        self._seen = 0
        # A stream's decayed sums of 1, x, y, x x, x y; x = log n, y = loss
        self._sums = np.zeros((len(starts), 5))

    def __len__(self) -> int:
        return self._samples

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """See ``Ledger``; non-finite scores say nothing, and time is counted in samples instead of
        ``now``.
        """
        ids, scores = ids.reshape(-1), scores.reshape(-1).astype(np.float64)
        finite = np.isfinite(scores)
        if not finite.any():
            return
        before, self._seen = self._seen, self._seen + int(finite.sum())
        streams = groups_of(self._starts, ids[finite])
        count, loss = (
            np.bincount(streams, weights=weights, minlength=len(self._starts))
            for weights in (None, scores[finite])
        )
        x = np.log(self._seen)
        self._sums *= (before / self._seen) ** _FORGET
        self._sums += np.stack([count, count * x, loss, count * x * x, loss * x], axis=1)

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """See ``Ledger``: whether enough of its stream has been trained on to see it fall. It does
        not grow old.
        """
        return np.isfinite(self.slopes)[groups_of(self._starts, ids)]

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ``Ledger``: the stream's slope, at least a tenth of the mean of all."""
        slopes = np.maximum(self.slopes, 0.0)  # a NaN stays
        known = np.isfinite(slopes)
        mean = slopes[known].mean() if known.any() else 0.0
        floored = np.maximum(slopes, _FLOOR * mean) if mean > 0 else np.where(known, 1.0, np.nan)
        return floored.astype(np.float32)[groups_of(self._starts, ids)]

    @property
    def slopes(self) -> NDArray[np.float64]:
        """-dL / d log n of each stream in nats, shape (K,); NaN where not enough of it has been
        trained on.
        """
        count, x, y, xx, xy = self._sums.T
        some = np.where(count > 0, count, 1.0)
        spread = xx / some - (x / some) ** 2
        believed = (count > 0) & (spread > _LEAST_SPREAD)
        return np.where(
            believed, -(xy / some - x * y / some**2) / np.where(believed, spread, 1.0), np.nan
        )

    def state_dict(self) -> dict[str, Any]:
        """See ``Ledger``: a float64 tensor of shape (K, 5) and a number."""
        return {"per": _KIND, "sums": torch.from_numpy(self._sums.copy()), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Ledger``."""
        check_state(state, _KIND, len(self._starts), "sums", "streams")
        self._sums[:] = state["sums"].cpu().numpy()
        self._seen = int(state["seen"])


def open_progress(request: Request) -> Ledger:
    """A ``ProgressLedger`` for a data set."""
    return ProgressLedger(request.dataset.sample_offset_per_stream, request.dataset.num_samples)


# What ``score: progress`` stands for.
RECIPE = Recipe({"score": "remembered", "select": "proportional", "remember": {"per": "progress"}})
