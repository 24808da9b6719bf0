"""Whether teaching pays. Oracles: the gains of known spreads, counts of probes."""

import numpy as np
import pytest

from attent_stream.experimental.inclusion import INCLUSIONS, moment_gain
from attent_stream.experimental.payoff import MARGIN, Payoff, best_design


def test_the_best_design_has_the_largest_gain():
    rng = np.random.default_rng(2)
    for spread in (0.01, 0.5, 2.0):
        scores = np.exp(spread * rng.normal(size=(8, 16)))
        design = best_design(scores, 64)
        gains = {
            name: moment_gain(scores.reshape(-1), inclusion(scores.reshape(-1), 64, 1.0))
            for name, inclusion in INCLUSIONS.items()
        }
        assert design.gain == max(gains.values()) == gains[design.name]
    assert best_design(scores, 64).gain > 1.5
    # Of equals: as good as plain, not better
    assert best_design(np.ones((8, 16)), 64).gain == pytest.approx(1.0)


def test_what_pays():
    payoff = Payoff(cost=0.3)
    assert payoff.pays(1.0 + MARGIN + 0.001, 0.5, scored=False) and not payoff.pays(
        1.0 + MARGIN, 0.5, scored=False
    )
    assert payoff.pays(1.2 + MARGIN + 0.001, 0.5, scored=True) and not payoff.pays(
        1.2 + MARGIN - 0.001, 0.5, scored=True
    )
    assert not payoff.scores(0.5)  # nothing is known
    payoff.see(3.0)
    assert payoff.scores(0.5)
    for _ in range(10):
        payoff.see(1.0)
    assert not payoff.scores(0.5)


def test_probes_cost_a_hundredth_at_most():
    for cost in (0.05, 1.0, 3.0):
        for windows in (3, 5, 20, 50, 200, 1000):
            probed = sum(Payoff(cost).probes(index, index / windows) for index in range(windows))
            assert probed * cost / 3 <= 0.01 * windows + 1e-9
    assert Payoff(0.05).probes(1, 1 / 5)
    assert [i for i in range(200) if Payoff(1.0).probes(i, i / 200)] == [1, 65, 129, 193]
