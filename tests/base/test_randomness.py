"""States of random number generators. Oracle: the numbers that follow."""

import logging
import random

import numpy as np
import pytest
import torch

from attent_stream.base import randomness
from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.randomness import random_state, restore_ranks, set_random_state


@pytest.fixture(autouse=True)
def kept():
    with random_numbers_kept():
        yield


def draws():
    gauss = [random.gauss(0, 1), np.random.randn()]  # noqa: NPY002
    return [*gauss, random.random(), np.random.rand(), *torch.randn(3).tolist()]  # noqa: NPY002


@pytest.mark.parametrize("before", [0, 1, 700])
def test_the_same_numbers_follow(before):
    """Also in the middle of a key, and with the second of two Gaussian numbers left."""
    for _ in range(before):
        draws()
    state = random_state()
    assert state.dtype == torch.uint8 and state.ndim == 1
    expected = draws()
    set_random_state(state)
    assert draws() == expected


def test_a_state_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"random number state of shape \(\d+,\), got \(3,\)"):
        set_random_state(torch.zeros(3, dtype=torch.uint8))


def test_ranks_get_their_own_or_none(monkeypatch, caplog):
    monkeypatch.setattr(randomness.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(randomness.dist, "get_global_rank", lambda: 1)
    first, _ = random_state(), draws()
    states = torch.stack([first, random_state()])
    expected = draws()
    restore_ranks(states)
    assert draws() == expected
    before = random_state()
    with caplog.at_level(logging.INFO):
        restore_ranks(states[:1])
    assert torch.equal(random_state(), before) and "of 1 ranks or of other" in caplog.text
