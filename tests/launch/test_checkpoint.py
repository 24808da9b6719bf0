"""Checkpoints that could run code are not loaded."""

import os
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
import torch

from attent_stream.launch.checkpoint import UnsafeCheckpoint, numbers_only

STATE = {
    "weights": torch.arange(3.0),
    "duration": timedelta(seconds=2),
    "numpy": np.random.RandomState(3).get_state(),
    "names": ["a"],
}


def load(path, value, **settings):
    torch.save(value, path)
    with numbers_only(**settings):
        return torch.load(path, weights_only=False)


def test_composers_state_is_read(tmp_path):
    read = load(tmp_path / "c.pt", STATE)
    assert torch.equal(read["weights"], STATE["weights"]) and read["duration"] == STATE["duration"]
    assert np.array_equal(read["numpy"][1], STATE["numpy"][1])


def test_another_object_is_refused_by_name(tmp_path):
    with pytest.raises(UnsafeCheckpoint, match=r"fractions\.Fraction.*load_unsafe_types"):
        load(tmp_path / "c.pt", {"x": Fraction(1, 2)})
    assert load(tmp_path / "c.pt", {"x": Fraction(1, 2)}, allow_unsafe=True)["x"] == 0.5


@pytest.mark.parametrize("before", [None, "0"])
def test_the_environment_is_restored(monkeypatch, before):
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with numbers_only():
        assert os.environ[name] == "1"
    assert os.environ.get(name) == before
