"""Evenly spaced tokens, against a loop."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.score.token_positions import strided_positions


@given(
    st.lists(st.lists(st.booleans(), min_size=17, max_size=17), min_size=1, max_size=4),
    st.sampled_from([0.05, 0.125, 0.3, 0.9]),
)
def test_strided_positions(valid, share):
    valid = np.array(valid)
    got = strided_positions(torch.where(torch.from_numpy(valid), 7, -100), share).numpy()
    assert got.shape == (len(valid), int(np.ceil(round(share * 17, 6))))
    for row, has in zip(got, valid, strict=True):
        labelled = np.flatnonzero(has)
        count = int(np.ceil(round(share * len(labelled), 6)))
        # The middle one of each of ``count`` equal groups
        assert row.tolist() == [
            labelled[(2 * i + 1) * len(labelled) // (2 * count)] for i in range(count)
        ] + [-1] * (len(row) - count)
        assert (np.diff(row[:count]) > 0).all()
