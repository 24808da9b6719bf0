"""Scores that are empty, known or unknown."""

import numpy as np

from attent_stream.base.empty import EMPTY, is_empty, is_known


def test_only_minus_infinity_is_empty():
    scores = np.array([EMPTY, np.inf, np.nan, 0.0, -1e30], np.float32)
    assert is_empty(scores).tolist() == [True, False, False, False, False]
    assert is_known(scores).tolist() == [True, False, False, True, True]
