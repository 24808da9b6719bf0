"""The ledger: what is remembered of each sample's last score, in 16 bits, or of each shard's or
stream's.

A score is kept as a float16, which is within 0.05% of it. Where scores may grow too old to be used,
when each was given is kept besides in 16 bits, rounded down by up to 0.8% of the time so far: never
taken for younger than it is.

In the first epoch of a fresh model losses fall by more than samples differ: remembered as they were
given, what was seen early counts as hard in the second. So a score can be remembered as its
difference from the trend of new samples' scores, to be recalled with that of now (``detrend``).
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.base.empty import EMPTY, is_known

_LARGEST = float(np.finfo(np.float16).max)
# That the trend is over beside those of the batch: enough to see it through their spread
_TREND_SAMPLES = 144
_TREND_BYTES = 16  # the trend, and how many samples it is over so far


class Ledger(Protocol):
    """Memory of scores. All ranks of a job record, load and read at the same places, as those of a
    node may share it.
    """

    def __len__(self) -> int:
        """Samples of the data set."""

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """Remember scores; a non-finite one says that the sample's is not known, but ``-inf`` that
        it has no label.

        Args:
            ids: Sample ids, any shape.
            scores: Their scores, the same shape.
            now: Time, in the unit in which ages are asked for.
        """

    def known(self, ids: NDArray[np.int64], now: float, age: float) -> NDArray[np.bool_]:
        """Which samples have a score younger than ``age`` at time ``now``, same shape as
        ``ids``.
        """

    def recall(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Last scores, NaN where there is none, same shape as ``ids``."""

    def state_dict(self) -> dict[str, Any]:
        """All of it: plain values and tensors, which may share its memory (every rank tells its
        state).
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state; raises ValueError for one of another data set or
        kind.
        """


class SampleLedger:
    """Each sample's last score.

    Args:
        num_samples: Samples in the data set.
        ages: Whether scores may become too old.
        detrend: Whether a score is remembered as its difference from the trend, and recalled as
            what it would be with today's: the running mean of the scores of samples that had none
            before. It stands still once all have one: by how much the losses of samples that come
            again fall says how well they are remembered by the model, not what the others' would be
            by now.
        memory: Zeroed, of ``sample_bytes`` bytes, such as the node's ranks share; None: its own.
        writes: Whether this process writes; of those that share memory one does.
        settle: Waits for the one that writes; called before what may still be on its way is read.
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
            # Of its own, pages are only taken for samples that were recorded.
            memory = np.zeros(sample_bytes(num_samples, ages), np.uint8)
        # The node's, as it needs what one of them writes
        self._trend = np.frombuffer(memory, np.float64, 2) if detrend else None
        words = np.frombuffer(memory, np.uint16, count, _TREND_BYTES)
        self._codes = words[:num_samples]  # 0: not known, else 1 + the bits of a float16
        self._stamps = words[num_samples:] if ages else None  # the upper half of a float32
        self._writes = writes
        self._settle, self._settled = settle, True

    def __len__(self) -> int:
        return len(self._codes)

    def record(self, ids: NDArray[np.int64], scores: NDArray[np.floating], now: float) -> None:
        """See ``Ledger``. Of a sample that stands there twice the last counts."""
        self._settled = False
        if not self._writes:
            return
        ids, scores = ids.reshape(-1), scores.reshape(-1).astype(np.float32)
        if self._trend is not None:
            before = _decoded(self._codes[ids])  # this process wrote it, so nothing is waited for
            _follow(self._trend, scores[np.isfinite(scores) & ~np.isfinite(before)])
            scores = scores - np.float32(self._trend[0])
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
        return scores if self._trend is None else scores + np.float32(self._trend[0])

    def state_dict(self) -> dict[str, Any]:
        """See ``Ledger``: int16 tensors of shape (num_samples,), and a float64 one, that share its
        memory.
        """
        self._wait()
        stamps = None if self._stamps is None else torch.from_numpy(self._stamps.view(np.int16))
        trend = None if self._trend is None else torch.from_numpy(self._trend)
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
            kinds = ("with the time of each score", "of scores that never grow old")
            has, wants = (kinds[part is None] for part in (state["stamps"], self._stamps))
            raise ValueError(
                f"the checkpoint's ledger is {has}, this run's interval needs one {wants}"
            )
        if (state.get("trend") is None) != (self._trend is None):
            told = (
                "of scores as they were given (remember.detrend: false)",
                "of their differences from a trend (remember.detrend: true)",
            )
            raise ValueError(
                "the checkpoint's ledger is {}, this run's {}".format(
                    *(told if self._trend is not None else told[::-1])
                )
            )
        self._settled = False
        if not self._writes:
            return
        self._codes[:] = state["codes"].cpu().numpy().view(np.uint16)
        if self._stamps is not None:
            self._stamps[:] = state["stamps"].cpu().numpy().view(np.uint16)
        if self._trend is not None:
            self._trend[:] = state["trend"].cpu().numpy()

    def _wait(self) -> None:
        if not self._settled:
            self._settle()
            self._settled = True


class GroupLedger:
    """The mean score of each group of consecutive samples: a shard's, or a stream's.

    A group's mean is over about as many of the last scores as it has samples.

    Args:
        starts: First sample id of each group, ascending from 0, shape (G,).
        num_samples: Samples in the data set.
        per: What a group is, for the state.
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
        """See ``Ledger``; non-finite scores say nothing."""
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
        """See ``Ledger``: the group's mean."""
        return np.where(self._counts > 0, self._means, np.nan).astype(np.float32)[
            groups_of(self._starts, ids)
        ]

    def state_dict(self) -> dict[str, Any]:
        """See ``Ledger``: tensors of shape (G,)."""
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
    """Memory of a ``SampleLedger``."""
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
    """The group of each sample, of groups of consecutive samples.

    Args:
        starts: First sample id of each group, ascending from 0, shape (G,).
        ids: Sample ids, any shape.
    """
    return np.searchsorted(starts, ids, side="right") - 1


def check_state(state: dict[str, Any], per: str, count: int, name: str, what: str) -> None:
    """Raise ValueError unless a state is of a ledger of this kind and of ``count`` entries under
    ``name``.
    """
    if state.get("per") != per:
        raise ValueError(
            f"the checkpoint's ledger is kept per {state.get('per')}, this run's per {per}"
        )
    if len(state[name]) != count:
        raise ValueError(
            f"the checkpoint's ledger is of a data set of {len(state[name])} {what}, this one has "
            f"{count}"
        )
