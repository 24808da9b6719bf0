"""The ledger: what is remembered of each sample's last score."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Ledger:
    """Last score of every sample and when it was given, in this process's memory.

    Pages are only taken for samples that were recorded: 8 bytes a sample.

    Args:
        num_samples: Samples in the data set.
    """

    def __init__(self, num_samples: int) -> None:
        self._scores = np.zeros(num_samples, np.float32)
        self._stamps = np.zeros(num_samples, np.float32)  # 0: never seen, else 1 + the time of recording

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """Remember scores; a non-finite one forgets what was known.

        Args:
            ids: Sample ids, any shape.
            scores: Their scores, the same shape.
            now: Time, in the unit in which ages are asked for.
        """
        ids, scores = ids.reshape(-1), scores.reshape(-1)
        self._scores[ids] = scores
        self._stamps[ids] = np.where(np.isfinite(scores), 1.0 + now, 0.0)

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """Which samples have a score younger than ``age`` at time ``now``, same shape as ``ids``."""
        stamps = self._stamps[ids]
        return (stamps > 0) & (now - (stamps - 1.0) < age)

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Last scores, NaN where there is none, same shape as ``ids``."""
        return np.where(self._stamps[ids] > 0, self._scores[ids], np.nan).astype(np.float32)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All of it, as two float32 tensors of shape (num_samples,)."""
        return {"scores": torch.from_numpy(self._scores.copy()), "stamps": torch.from_numpy(self._stamps.copy())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Ledger":
        """From ``state_dict``'s state."""
        ledger = cls(len(state["scores"]))
        ledger._scores[:] = state["scores"].cpu().numpy()
        ledger._stamps[:] = state["stamps"].cpu().numpy()
        return ledger
