"""The copied state of numpy's global generator. Oracle: numpy's own copy."""

import numpy as np
import pytest

from attent_stream.base import numpy_state
from attent_stream.base.numpy_state import NumpyState


@pytest.fixture(autouse=True)
def kept():
    state = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


def own():
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return name, keys.tolist(), *rest


def draw(kinds):
    draws = {
        "uniform": np.random.rand,
        "gauss": np.random.randn,
        "key": lambda: np.random.rand(400),  # noqa: NPY002
    }
    return [np.array(draws[kind]()).tolist() for kind in kinds]


def test_any_draws_between_copies_are_undone():
    """Hundreds of copies in a row, with draws before and within each, also of Gaussian pairs."""
    rng, kept = np.random.default_rng(3), NumpyState()
    for _ in range(300):
        kinds = ["uniform", "gauss", "key"]
        draw(rng.choice(kinds, rng.integers(3)))
        expected, state = own(), kept.get()
        if rng.random() < 0.7:
            np.random.seed(rng.integers(1 << 31))  # noqa: NPY002
        draw(rng.choice(kinds, rng.integers(4)))
        if rng.random() < 0.3:  # one within another
            inner = kept.get()
            draw(["gauss"])
            kept.set(inner)
        kept.set(state)
        assert own() == expected


def test_numpy_is_asked_once_where_nothing_was_drawn(monkeypatch):
    np.random.seed(5)  # noqa: NPY002
    kept, asked, get = NumpyState(), [], np.random.get_state
    monkeypatch.setattr(np.random, "get_state", lambda **how: asked.append(1) or get(**how))
    for _ in range(9):
        state = kept.get()
        np.random.seed(7)  # noqa: NPY002
        draw(["gauss"])
        kept.set(state)
    assert len(asked) == 1


def test_memory_that_is_not_the_state_is_not_trusted(monkeypatch):
    monkeypatch.setattr(numpy_state, "_SIZE", 2400)
    kept = NumpyState()
    expected, state = own(), kept.get()
    draw(["key", "gauss"])
    kept.set(state)
    assert own() == expected and isinstance(kept.get(), dict)


def test_another_generator_is_copied_by_numpy():
    twister, kept = np.random.get_bit_generator(), NumpyState()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        state = kept.get()
        expected = draw(["uniform", "gauss"])
        kept.set(state)
        assert draw(["uniform", "gauss"]) == expected
    finally:
        np.random.set_bit_generator(twister)


def test_a_generator_that_was_replaced_meanwhile_gets_the_state():
    twister, kept = np.random.get_bit_generator(), NumpyState()
    np.random.seed(5)  # noqa: NPY002
    for _ in range(2):
        state = kept.get()
    expected = own()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        with pytest.raises(ValueError, match="PCG64"):  # as numpy says
            kept.set(state)
        np.random.set_bit_generator(np.random.MT19937(1))
        kept.set(state)
        assert own() == expected
    finally:
        np.random.set_bit_generator(twister)
