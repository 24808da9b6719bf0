"""Samples in pieces: how many, and which lesson each goes to. Pure functions.

A model that is young learns as much from a short context as from a long one, and of a batch of the
same number of tokens more where they come from more places. So while training is young each sample
is cut into equal pieces, which are mixed over their window and trained on as samples of their own
(Li et al., "The stability-efficiency dilemma: sequence length warmup", NeurIPS 2022; Pouransari et
al., "Dataset decomposition", NeurIPS 2024, whose buckets of lengths take a corpus written anew;
here the stream stays as it is).
"""

import math

import numpy as np
from numpy.typing import NDArray

from attent_stream.window.selection import by_lane

MOST = 16  # pieces of a sample


def pieces_at(share: float) -> int:
    """Into how many pieces a sample is cut so that each has about a share of its positions: a power
    of 2, at most ``MOST``.

    Args:
        share: In (0, 1].
    """
    return min(MOST, 2 ** round(-math.log2(share)))


def cut(positions: NDArray[np.int64], pieces: int) -> NDArray[np.int64]:
    """The pieces of samples, side by side.

    Args:
        positions: Of the samples, shape (L, S).
        pieces: Of each.

    Returns:
        Positions among all samples' pieces (``position * pieces + piece``), int64 of shape (L, S *
        pieces).
    """
    return (positions[..., None] * pieces + np.arange(pieces)).reshape(len(positions), -1)


def mixed(
    positions: NDArray[np.int64], lanes: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Shuffle within each lane.

    Args:
        positions: Of anything, shape (L, S).
        lanes: Lane of each, non-negative ints of the same shape.
        rng: Draws.

    Returns:
        The same positions in each lane's slots, int64 of shape (L, S).
    """
    flat = positions.reshape(-1)
    _, starts, _, slots = by_lane(lanes)
    out = flat.copy()
    for lane in np.split(slots, starts[1:]):
        out[lane] = flat[rng.permutation(lane)]
    return out.reshape(positions.shape)
