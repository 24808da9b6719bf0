"""Bootstrap intervals, against all resamples."""

import itertools

import numpy as np
import pytest

from attent_stream.bench.intervals import bootstrap, resamples


def test_intervals_are_those_of_all_resamples():
    values = np.array([1.0, 2.0, 6.0])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    found = bootstrap(lambda seeds: float(values[list(seeds)].mean()), 3)
    assert found.value == 3 and found.interval == pytest.approx(
        np.quantile(means, [0.025, 0.975]).tolist()
    )
    assert bootstrap(lambda seeds: 1.0, 2).interval is None  # two seeds say nothing of their spread
    assert resamples(3, np.random.default_rng(0)).shape == (27, 3)
    rarely = bootstrap(lambda seeds: None if list(seeds).count(0) >= 2 else 1.0, 3)
    assert (
        rarely.value == 1 and rarely.interval is None and rarely.undefined == pytest.approx(7 / 27)
    )
    many = np.random.default_rng(1).normal(size=40)
    wide = bootstrap(lambda seeds: float(many[list(seeds)].mean()), 40)
    half = 1.96 * many.std() / np.sqrt(40)
    assert wide.low == pytest.approx(many.mean() - half, abs=0.05)
    assert wide.high == pytest.approx(many.mean() + half, abs=0.05)
