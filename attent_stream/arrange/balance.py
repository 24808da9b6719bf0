"""Balanced batches: lessons in an order of which every stretch has nearly the window's mean
features. Pure functions on numpy arrays.

Greedy herding (Welling, "Herding dynamical weights to learn", ICML 2009; as an order of training
samples Lu et al., "GraB: Finding provably better data permutations than random reshuffling",
NeurIPS 2022, algorithm 1): of the samples left, the next is the one with which the sum of all so
far, less as many times the mean, is shortest. What lessons have in common then cancels out of the
noise of a batch's gradient, and more so out of what an optimizer's momentum sees of several.
Nothing is dropped or weighted.
"""

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.gather import ALONE, RankGroup
from attent_stream.window.selection import by_lane

# Samples that are ordered together: the work grows with n squared, what is gained hardly
BLOCK = 1024
# Samples of a window: a larger one is left as it is, as each rank would hold a gigabyte a million
# of their features
LARGEST = 1 << 16
_AT_ONCE = 1 << 24  # numbers
# Float32 holds whole numbers up to twice that, and no product of two samples is larger than the
# largest's own
_EXACT = 1 << 23


def herded(features: NDArray) -> NDArray[np.int64]:
    """Order samples so that the mean of any that follow each other is near the mean of all.

    Args:
        features: Shape (blocks, n, d), whole numbers of at most 2^20, of any dtype: sums of their
            products are then exact, so that every machine finds the same order.

    Returns:
        Of each block the places of its samples in their new order, int64 of shape (blocks, n). Of
        equally good ones the earlier comes first: samples that are all alike stay where they are.
    """
    blocks, n, _ = features.shape
    wide = features.astype(np.float32)
    if np.einsum("bnd,bnd->bn", wide, wide).max(initial=0) >= _EXACT:
        wide = features.astype(np.float64)
    gram = wide @ wide.swapaxes(1, 2)
    rows = gram.sum(axis=2, dtype=np.float64)
    total = rows.sum(axis=1)[:, None]
    # |sum + x|^2 = |sum|^2 + 2 <sum, x> + |x|^2, of which the first is the same for all. Here with
    # features less their mean, and times n^2, which makes them whole numbers again.
    longer = n * (n * np.diagonal(gram, axis1=1, axis2=2).astype(np.float64) - 2 * rows) + total
    order, every = np.empty((blocks, n), np.int64), np.arange(blocks)
    for place in range(n):
        best = longer.argmin(axis=1)
        order[:, place] = best
        longer += 2 * (
            n * (n * gram[every, best].astype(np.float64) - rows[every, best, None] - rows) + total
        )
        longer[every, best] = np.inf
    return order


def balance_lanes(
    positions: NDArray[np.int64],
    wanted: NDArray[np.integer],
    features: NDArray,
    group: RankGroup = ALONE,
) -> NDArray[np.int64]:
    """Order a window's lessons, each within its lane, up to ``BLOCK`` of a lane at a time.

    Args:
        positions: Of the lessons in the window's candidates, shape (L, S).
        wanted: Lane of each, non-negative ints of the same shape.
        features: Of the candidates, shape (C, S, d), as ``herded`` has them.
        group: Ranks that have the same arguments and share the work; they call this together.

    Returns:
        The same positions in each lane's slots, int64 of shape (L, S).
    """
    flat, known = positions.reshape(-1), features.reshape(-1, features.shape[-1])
    _, starts, sizes, slots = by_lane(wanted)
    lanes = np.split(slots, starts[1:])
    blocks = [
        part
        for lane, size in zip(lanes, sizes, strict=True)
        for part in np.array_split(lane, -(-size // BLOCK))
    ]
    out = np.zeros_like(flat)
    mine = blocks[group.rank :: group.ranks]
    for size in sorted({len(block) for block in mine}):
        alike = np.array([block for block in mine if len(block) == size])
        step = max(1, _AT_ONCE // (size * max(size, known.shape[1])))
        for first in range(0, len(alike), step):
            some = flat[alike[first : first + step]]
            out[alike[first : first + step]] = np.take_along_axis(some, herded(known[some]), axis=1)
    return group.total(out).reshape(positions.shape)


def imbalance(positions: NDArray[np.int64], features: NDArray) -> float:
    """How far the batches are from the window's mean, squared, in what it would be on average of
    batches drawn at random.

    Args:
        positions: As of ``balance_lanes``; a row is a batch.
        features: As there.

    Returns:
        0 where all are alike; 1 of random batches; 1 where there is nothing to balance.
    """
    of = features.reshape(-1, features.shape[-1])[positions].astype(np.float32)
    count, size = positions.shape
    batches = of.mean(axis=1, dtype=np.float64)
    mean = batches.mean(axis=0)
    spread = (
        np.einsum("bsd,bsd->b", of, of).sum(dtype=np.float64) / (count * size) - (mean**2).sum()
    )
    if count < 2 or spread <= 1e-6 * (mean**2).sum():
        return 1.0
    # Without replacement a batch's mean spreads by (N - n) / (N - 1) less.
    expected = spread / size * (count * size - size) / (count * size - 1)
    return float(((batches - mean) ** 2).sum() / count / expected)
