"""Rows of each batching method: some slots of some rows against all of them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from orders import both, jobs
from seeded import seeded

from attent_stream.order.lazy_rows import stratified_portions


@pytest.mark.filterwarnings("ignore")
@seeded(30)
@given(job=jobs(), draw=st.data())
def test_some_slots_of_some_rows(job, draw):
    rows, layout = (order := both(job)[1]).rows, order.layout
    assume(rows.full)
    numbers = sorted(draw.draw(st.sets(st.integers(0, rows.full - 1), max_size=5)))
    slots = draw.draw(st.lists(st.integers(0, layout.row_size - 1), max_size=5))
    numbers, slots = np.array(numbers, np.int64), np.array(slots, np.int64)
    whole = rows.between(0, rows.full)
    assert np.array_equal(rows.some(numbers, slots), whole[np.ix_(numbers, slots)])


@seeded(100)
@given(weights=st.lists(st.floats(0.1, 1), min_size=1, max_size=5), row_size=st.integers(60, 500))
def test_portions_are_the_proportions_rounded(weights, row_size):
    proportions = np.array(weights) / sum(weights)
    portions = stratified_portions(proportions, row_size)
    assert sum(portions) == row_size
    assert (np.abs(np.array(portions) - proportions * row_size) <= 1 + 1e-9).all()


def test_a_stream_without_a_sample_in_a_row_is_refused():
    with pytest.raises(ValueError, match="stream 1 has a proportion of 0.01, .* global batch of 8"):
        stratified_portions(np.array([0.99, 0.01]), 8)
