"""The score of a sample that has no label: there is nothing to learn from it, and that is known.

A prompt longer than the context leaves no token of the answer; a segmentation map may be ignored as
a whole. Such a sample is the last to be chosen. A score that is not finite for another reason is
unknown.
"""

import numpy as np
from numpy.typing import NDArray

EMPTY = float("-inf")


def is_empty(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which samples are known to have no label."""
    return np.isneginf(scores)


def is_known(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which samples have a score, or are known to have no label."""
    return np.isfinite(scores) | is_empty(scores)
