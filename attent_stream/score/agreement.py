"""How well two scores of the same samples agree."""

import numpy as np
from numpy.typing import NDArray


def spearman(a: NDArray, b: NDArray) -> float:
    """Rank correlation of two scores of the same samples, with the mean rank for ties.

    Args:
        a: Shape (N,). Samples with a score that is not finite, in ``a`` or ``b``, are left out.
        b: Shape (N,).

    Returns:
        In [-1, 1]. NaN for fewer than two samples, or where all scores of one kind are equal.
    """
    finite = np.isfinite(a) & np.isfinite(b)
    if finite.sum() < 2:
        return float("nan")
    x, y = _ranks(a[finite]), _ranks(b[finite])
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else float("nan")


def kept_overlap(a: NDArray, b: NDArray, keep: float) -> float:
    """Share of the top samples by one score that are also in the top by the other.

    Args:
        a: Shape (N,). Samples with a score that is not finite, in ``a`` or ``b``, are left out.
        b: Shape (N,).
        keep: Share of the samples in the top, in (0, 1], at least one sample. Ties go by order.
    """
    finite = np.isfinite(a) & np.isfinite(b)
    count = max(1, round(keep * finite.sum()))
    if not finite.any():
        return float("nan")
    top = [set(np.argsort(-scores[finite], kind="stable")[:count].tolist()) for scores in (a, b)]
    return len(top[0] & top[1]) / count


def _ranks(values: NDArray) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[inverse]
