"""Agreement of two scores, against numpy and by hand."""

import numpy as np
import pytest

from attent_stream.score.agreement import kept_overlap, spearman


def test_spearman_is_the_correlation_of_mean_ranks():
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 6, 30).astype(float), generator.normal(size=30)
        ranks = [[(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x] for x in (a, b)]
        assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
        a[3] = np.nan
        assert spearman(a, b) == pytest.approx(spearman(np.delete(a, 3), np.delete(b, 3)))
    assert spearman(b, np.exp(b)) == pytest.approx(1.0) and spearman(b, -b) == pytest.approx(-1.0)
    assert np.isnan(spearman(b, b * 0)) and np.isnan(spearman(b * np.nan, b))


def test_overlap_is_what_both_keep():
    assert kept_overlap(np.array([4.0, 3, 2, 1]), np.array([1.0, 9, 8, 0]), 0.5) == 0.5
    assert kept_overlap(np.arange(8.0), np.arange(8.0) * 2, 0.25) == 1.0
    assert kept_overlap(np.array([4.0, np.nan, 2, 1]), np.array([4.0, 9, 1, 2]), 0.1) == 1.0
