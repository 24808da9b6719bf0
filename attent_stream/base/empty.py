"""The score of a sample without labels, from which there is nothing to learn.

A prompt longer than the context leaves no answer token; a segmentation map may be ignored as a
whole. Such a sample has the score ``EMPTY`` and is chosen last. Any other score that is not finite
is unknown.
"""

import numpy as np
from numpy.typing import NDArray

EMPTY = float("-inf")


def is_empty(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which samples are known to have no label."""
    return np.isneginf(scores)


def is_known(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which samples have a score or are known to have no label."""
    return np.isfinite(scores) | is_empty(scores)
