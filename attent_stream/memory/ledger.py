"""Ledgers, which remember the last score of each sample, or a mean of each shard or stream.

A sample's score is kept as a float16, with an error of at most 0.05%. If scores can expire, their
times are kept in 16 bits too. Times are rounded down, by up to 0.8% of the time so far, so a score
never counts as younger than it is.

In the first epoch of a new model, losses fall by more than samples differ. So samples seen early
would count as hard in the second epoch. With ``detrend``, a score is kept as its difference from
the trend of new samples' scores, and recalled with the current trend. By how much samples that come
again are below that trend tells how much of them the model has memorized.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.base.empty import EMPTY, is_known

_LARGEST = float(np.finfo(np.float16).max)
_TREND_SAMPLES = 144  # the trend's memory, enough to average out the spread of scores
_FEW = 32  # samples that came again, below which nothing is said about memorization
_MOST = 0.9  # share of the samples that must have come once before
_MEANS = 5  # of new samples, of those that come again, the counts of both, and of all new samples
_TREND_BYTES = 8 * _MEANS


class Ledger(Protocol):
    """Memory of scores.

    All ranks of the job must make the same calls, as the ranks of a node may share memory.
    """

    def __len__(self) -> int:
        """Number of samples in the data set."""

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """Remember scores.

        Args:
            ids: Sample ids, any shape.
            scores: Their scores, same shape. ``-inf`` means that the sample has no label, and any
                other non-finite value that its score is unknown.
            now: The current time, in the unit of ages.
        """

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """Return which samples have a score younger than ``age``, same shape as ``ids``."""

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the last scores, NaN if there is none, same shape as ``ids``."""

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as plain values and tensors, which may share the ledger's memory."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            ValueError: The state is of another data set or kind of ledger.
        """


class SampleLedger:
    """Remembers each sample's last score.

    Args:
        num_samples: Number of samples in the data set.
        ages: Whether scores can expire.
        detrend: Keep scores as differences from the trend, and recall them with the current one.
            The trend is the running mean of scores of samples that had none before. It is constant
            once all have one: the losses of repeated samples show how well the model has learnt
            those, not how much the other losses have fallen.
        memory: Zeroed memory of ``sample_bytes`` bytes, such as the node's ranks share. None: its
            own.
        writes: Whether this process writes. Only one of those that share memory does.
        settle: Waits for the process that writes. Called before reading after a write.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        ages: bool = True,
        detrend: bool = False,
        memory: Any = None,
        writes: bool = True,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        count = num_samples * (2 if ages else 1)
        if memory is None:
            # The system allocates pages only for samples that are recorded.
            memory = np.zeros(sample_bytes(num_samples, ages), np.uint8)
        # In the shared memory too, as only one process updates it.
        self._means = np.frombuffer(memory, np.float64, _MEANS) if detrend else None
        words = np.frombuffer(memory, np.uint16, count, _TREND_BYTES)
        self._codes = words[:num_samples]  # 0 if unknown, else 1 + the bits of a float16
        self._stamps = words[num_samples:] if ages else None  # the upper half of a float32
        self._writes = writes
        self._settle, self._settled = settle, True

    def __len__(self) -> int:
        return len(self._codes)

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """See ``Ledger``. If a sample is repeated, its last score counts."""
        self._settled = False
        if not self._writes:
            return
        ids, scores = ids.reshape(-1), scores.reshape(-1).astype(np.float32)
        if self._means is not None:
            trend, below = self._means[:2], self._means[2:4]
            before = _decoded(self._codes[ids])  # written by this process, so there is no wait
            fine, known = np.isfinite(scores), np.isfinite(before)
            _follow(trend, scores[fine & ~known])
            self._means[4] += (fine & ~known).sum()
            scores = scores - np.float32(trend[0])
            # Before, it may be another piece of a sample that was trained on just now
            if self._means[4] >= _MOST * len(self):
                _follow(below, -scores[fine & known])
        self._codes[ids] = _encoded(scores)
        if self._stamps is not None:
            self._stamps[ids] = np.float32(now).view(np.uint32) >> 16

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """See ``Ledger``."""
        self._wait()
        found = self._codes[ids] > 0
        if self._stamps is None:
            return found
        given = (self._stamps[ids].astype(np.uint32) << 16).view(np.float32)
        return found & (now - given < age)

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ``Ledger``."""
        self._wait()
        scores = _decoded(self._codes[ids])
        return scores if self._means is None else scores + np.float32(self._means[0])

    @property
    def memorized(self) -> float:
        """Share by which the running mean of samples that came again is below the trend of new
        ones; 0 if it is not known: without ``detrend``, or of few samples.
        """
        self._wait()
        if self._means is None:
            return 0.0
        trend, _, below, samples, _ = self._means
        return float(below / trend) if samples >= _FEW and trend > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """See ``Ledger``. Int16 tensors of shape (num_samples,), and the means in float64."""
        self._wait()
        stamps = None if self._stamps is None else torch.from_numpy(self._stamps.view(np.int16))
        trend = None if self._means is None else torch.from_numpy(self._means)
        return {
            "per": "sample",
            "codes": torch.from_numpy(self._codes.view(np.int16)),
            "stamps": stamps,
            "trend": trend,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Ledger``."""
        check_state(state, "sample", len(self), "codes", "samples")
        if (state["stamps"] is None) != (self._stamps is None):
            kinds = ("with the time of each score", "without times")
            found, expected = (kinds[part is None] for part in (state["stamps"], self._stamps))
            raise ValueError(
                f"expected the checkpoint to have a ledger {expected}, got one {found} (interval)"
            )
        if (state.get("trend") is None) != (self._means is None):
            expected, found = ("true", "false") if self._means is not None else ("false", "true")
            raise ValueError(
                f"expected the checkpoint to have a ledger of remember.detrend: {expected}, got "
                f"{found}"
            )
        self._settled = False
        if not self._writes:
            return
        self._codes[:] = state["codes"].cpu().numpy().view(np.uint16)
        if self._stamps is not None:
            self._stamps[:] = state["stamps"].cpu().numpy().view(np.uint16)
        if self._means is not None:
            self._means[:] = 0
            means = state["trend"].cpu().numpy()
            self._means[: len(means)] = means  # older checkpoints have the trend only

    def _wait(self) -> None:
        if not self._settled:
            self._settle()
            self._settled = True


class GroupLedger:
    """Remembers the mean score of each group of consecutive samples, such as a shard.

    A group's mean is over about as many of its last scores as it has samples.

    Args:
        starts: First sample id of each group, ascending from 0, shape (G,).
        num_samples: Number of samples in the data set.
        per: ``shard`` or ``stream``.
    """

    def __init__(self, starts: NDArray[np.integer], num_samples: int, per: str) -> None:
        self._starts = np.asarray(starts, np.int64)
        self._sizes = np.diff(self._starts, append=num_samples)
        self._means = np.zeros(len(starts), np.float64)
        self._counts = np.zeros(len(starts), np.int64)
        self._stamps = np.zeros(len(starts), np.float64)
        self._samples, self._per = num_samples, per

    def __len__(self) -> int:
        return self._samples

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """See ``Ledger``. Non-finite scores are ignored."""
        ids, scores = ids.reshape(-1), scores.reshape(-1).astype(np.float64)
        finite = np.isfinite(scores)
        groups = groups_of(self._starts, ids[finite])
        new = np.bincount(groups, minlength=len(self._starts))
        sums = np.bincount(groups, weights=scores[finite], minlength=len(self._starts))
        some = new > 0
        old = np.minimum(self._counts, np.maximum(self._sizes - new, 0))[some]
        self._means[some] = (self._means[some] * old + sums[some]) / (old + new[some])
        self._counts[some] = old + new[some]
        self._stamps[some] = now

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """See ``Ledger``."""
        return ((self._counts > 0) & (now - self._stamps < age))[groups_of(self._starts, ids)]

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ``Ledger``. The score is the group's mean."""
        return np.where(self._counts > 0, self._means, np.nan).astype(np.float32)[
            groups_of(self._starts, ids)
        ]

    def state_dict(self) -> dict[str, Any]:
        """See ``Ledger``. Tensors of shape (G,)."""
        parts = {"means": self._means, "counts": self._counts, "stamps": self._stamps}
        return {
            "per": self._per,
            **{name: torch.from_numpy(part.copy()) for name, part in parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Ledger``."""
        check_state(state, self._per, len(self._starts), "means", f"{self._per}s")
        self._means[:] = state["means"].cpu().numpy()
        self._counts[:] = state["counts"].cpu().numpy()
        self._stamps[:] = state["stamps"].cpu().numpy()


def sample_bytes(num_samples: int, ages: bool) -> int:
    """Return the number of bytes that a ``SampleLedger`` needs."""
    return _TREND_BYTES + num_samples * (4 if ages else 2)


def _follow(trend: NDArray[np.float64], scores: NDArray[np.floating]) -> None:
    """Update a trend in place with the scores of new samples."""
    if len(scores):
        mean, samples = trend
        rate = len(scores) / (len(scores) + samples)
        trend[:] = (
            mean + rate * (scores.mean(dtype=np.float64) - mean),
            min(samples + len(scores), _TREND_SAMPLES),
        )


def _encoded(scores: NDArray[np.float32]) -> NDArray[np.uint16]:
    finite, known = np.isfinite(scores), is_known(scores)
    bounded = np.clip(np.where(finite, scores, 0.0), -_LARGEST, _LARGEST)
    bits = np.where(finite | ~known, bounded, EMPTY).astype(np.float16).view(np.uint16)
    return np.where(known, bits + np.uint16(1), np.uint16(0))


def _decoded(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    known = codes > 0
    scores = (
        (np.where(known, codes, np.uint16(1)) - np.uint16(1)).view(np.float16).astype(np.float32)
    )
    return np.where(known, scores, np.float32(np.nan))


def groups_of(starts: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each sample's group.

    Args:
        starts: First sample id of each group, ascending from 0, shape (G,).
        ids: Sample ids, any shape.
    """
    return np.searchsorted(starts, ids, side="right") - 1


def check_state(state: dict[str, Any], per: str, count: int, name: str, what: str) -> None:
    """Check the kind of a ledger's state, and the number of entries under ``name``.

    Raises:
        ValueError: They differ from ``per`` or ``count``.
    """
    if state.get("per") != per:
        raise ValueError(
            f"expected the checkpoint to have a ledger per {per}, got one per {state.get('per')}"
        )
    if len(state[name]) != count:
        raise ValueError(
            f"expected the checkpoint to have a ledger of {count} {what}, got {len(state[name])}"
        )
