"""Resemblance: how much more a sample looks like the target than like the stream.

The mean over a sample's n-grams of log(p_target / p_stream): the importance weight of DSIR (Xie et
al., "Data Selection for Language Models via Importance Resampling", NeurIPS 2023, equation 3) for
each n-gram. DSIR counts the corpus before training. Here the stream is counted on the way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.base.empty import EMPTY
from attent_stream.base.gather import RankGroup
from attent_stream.score.ngrams import ABSENT, BUCKETS, ngram_counts

# Both sides are given as many n-grams of what they have in common: an n-gram that was seen a few
# times says little.
_PRIOR = BUCKETS


class Resemblance:
    """Scores of samples by their n-grams.

    What was counted since the last window was chosen is set aside, so that the scores of a window
    are comparable.

    Args:
        target: Counts of the target, one array of shape (BUCKETS,) for each of its streams.
        weights: Weight of each of these streams, above 0.
        group: Ranks that count together. They call ``advance`` and ``state_dict`` together.

    Raises:
        ValueError: A stream of the target has no n-grams.
    """

    def __init__(
        self, target: Sequence[NDArray[np.int64]], weights: Sequence[float], group: RankGroup
    ) -> None:
        for number, counts in enumerate(target):
            if not counts.sum():
                raise ValueError(f"expected text in stream {number} of the target, got no tokens")
        shares = [counts / counts.sum() for counts in target]
        self._target = np.average(shares, axis=0, weights=weights)
        self._size = float(sum(counts.sum() for counts in target))
        self._group = group
        self._stream = np.zeros(BUCKETS, np.int64)  # of all ranks, until the last choice
        self._since: list[NDArray] = []  # n-grams that this rank has read since then
        self._before = np.zeros(BUCKETS, np.int64)  # and their counts in a checkpoint
        self._ratios = self._log_ratios()

    @property
    def ready(self) -> bool:
        """Whether any of the stream was counted before the last choice."""
        return bool(self._stream.any())

    def scores(self, ids: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Score samples.

        Args:
            ids: Their n-grams, shape (B, n), see ``ngram_ids``.

        Returns:
            Nats an n-gram, shape (B,); ``EMPTY`` where a sample has no n-gram.
        """
        counts = np.count_nonzero(ids != ABSENT, axis=1)
        # ``take`` is more than twice as fast as indexing for long samples.
        means = self._ratios.take(ids).sum(axis=1, dtype=np.float64) / np.maximum(counts, 1)
        return np.where(counts > 0, means, EMPTY).astype(np.float32)

    def count(self, ids: NDArray[np.uint16]) -> None:
        """Count samples of the stream, which this rank has read."""
        self._since.append(ids.reshape(-1))

    def advance(self) -> None:
        """Score by all that was counted until now. All ranks call this together."""
        self._stream += self._group.total(self._counted())
        self._since, self._before = [], np.zeros(BUCKETS, np.int64)
        self._ratios = self._log_ratios()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was counted of the stream, the same on all ranks, which call this together."""
        since = self._group.total(self._counted())
        return {"stream": torch.from_numpy(self._stream.copy()), "since": torch.from_numpy(since)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: It is of another kind.
        """
        stream, since = (np.array(state[name], np.int64) for name in ("stream", "since"))
        if stream.shape != (BUCKETS,) or since.shape != (BUCKETS,):
            raise ValueError(
                f"expected counts of {BUCKETS} n-grams in the checkpoint, got {stream.shape} and "
                f"{since.shape}"
            )
        self._stream = stream
        # Every rank has the counts of all; one of them may add them up again.
        self._before = since if self._group.rank == 0 else np.zeros(BUCKETS, np.int64)
        self._since = []
        self._ratios = self._log_ratios()

    def _counted(self) -> NDArray[np.int64]:
        """Counts of this rank since the last choice, shape (BUCKETS,)."""
        if not self._since:
            return self._before.copy()
        return self._before + ngram_counts(np.concatenate(self._since))

    def _log_ratios(self) -> NDArray[np.float32]:
        """Logarithm of each n-gram's ratio, float32 of shape (BUCKETS + 1,); 0 for ``ABSENT``."""
        seen = float(self._stream.sum())
        stream = self._stream / seen if seen else self._target
        common = (self._target + stream) / 2
        target = (self._target * self._size + common * _PRIOR) / (self._size + _PRIOR)
        shared = (stream * seen + common * _PRIOR) / (seen + _PRIOR)
        known = common > 0  # neither has the others
        ratios = np.zeros(BUCKETS + 1, np.float32)
        ratios[:BUCKETS][known] = np.log(target[known] / shared[known])
        return ratios
