"""Frontiers, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.bench.frontier import BETTER, INSIDE, WORSE, frontier


def test_a_frontier_interpolates_between_its_lengths_and_says_so_beyond_them():
    found = frontier([10, 40, 20], [4.0, 2.0, 3.0])
    assert found.cost_at(3.5).value == pytest.approx(15) and found.cost_at(
        2.25
    ).value == pytest.approx(35)
    assert found.cost_at(4.0).value == 10 and found.cost_at(2.0).value == 40
    assert (found.cost_at(4.001).value, found.cost_at(4.001).where) == (None, WORSE)
    assert (found.cost_at(1.999).value, found.cost_at(1.999).where) == (None, BETTER)
    assert found.loss_at(30).value == pytest.approx(2.5) and found.loss_at(9).value is None
    assert found.loss_at(41).value is None and found.loss_at(20).where == INSIDE
    with pytest.raises(ValueError, match="finite"):
        frontier([1.0], [float("nan")])


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 20)),
        min_size=1,
        max_size=6,
        unique_by=lambda p: p[0],
    )
)
def test_a_frontier_is_the_least_squares_fit_that_never_rises(points):
    costs, losses = np.array(sorted(points), float).T
    found = frontier(*zip(*points, strict=True))
    assert (np.diff(found.losses) <= 1e-9).all() and (found.costs == costs).all()
    # Brute force: the best way to cut the points into runs of equal value, values falling.
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(costs) - 1):
        parts = np.split(losses, np.flatnonzero(cuts) + 1)
        means = [part.mean() for part in parts]
        if all(a >= b for a, b in itertools.pairwise(means)):
            best = min(best, sum(((part - part.mean()) ** 2).sum() for part in parts))
    assert ((found.losses - losses) ** 2).sum() == pytest.approx(best, abs=1e-9)
    for loss in losses:
        read = found.cost_at(loss)
        assert read.value is None or np.interp(
            read.value, found.costs, found.losses
        ) == pytest.approx(loss)
