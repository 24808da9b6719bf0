"""What a choice says of its lessons. Oracle: a loop over them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import RANDOM, Decision


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.data())
def test_ids_pieces_and_what_is_kept(rows, size, units, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    lessons = data.draw(st.integers(1, rows))
    ids = rng.permutation(100)[: rows * size].reshape(rows, size)
    window = Window(
        epoch=0, index=0, ids=ids, lanes=np.zeros_like(ids), unit=size, share=0.0, until=1.0
    )
    kept = rng.permutation(rows * size)[: lessons * size]
    places = (kept[:, None] * units + np.arange(units)).reshape(-1)
    places = rng.permutation(places).reshape(lessons, size * units)
    choice = Choice(
        decision=Decision(by=RANDOM, lessons=lessons, units=units),
        places=places,
        weights=np.ones(places.shape, np.float32),
        scores=None,
        window=window,
    )
    assert choice.ids.shape == choice.pieces.shape == places.shape
    for place, sample, piece in zip(places.flat, choice.ids.flat, choice.pieces.flat, strict=True):
        candidate = place // units
        assert sample == ids[candidate // size, candidate % size]
        assert place == candidate * units + piece
    assert choice.kept.shape == ids.shape
    assert set(np.flatnonzero(choice.kept)) == set(kept)
