"""The rows that a window may have, by brute force."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.order.order import check_window


@given(full=st.integers(0, 6), begin=st.integers(-2, 8), end=st.integers(-2, 8))
def test_only_full_rows(full, begin, end):
    order = SimpleNamespace(full=full, epoch=3)
    rows = set(range(begin, end))
    if begin <= end and rows <= set(range(full)) and 0 <= begin <= full:
        check_window(order, begin, end)
    else:
        with pytest.raises(IndexError, match=f"{full} full rows of epoch 3"):
            check_window(order, begin, end)
