"""The base class changes nothing, and an arrangement sees the lane of each unit."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from attent_stream.arrange.arrangement import Arrangement, Selected
from attent_stream.base.span import Clock
from attent_stream.window.choice import Window

CLOCK = Clock(ep=0, ba=0, sp=0, tok=0, dur=0)


@dataclass(frozen=True)
class Two(Arrangement):
    one: int = 1
    two: int = 2


def selected(units: int = 1) -> Selected:
    rng = np.random.default_rng(4)
    ids = rng.permutation(40)[:24].reshape(6, 4)
    window = Window(
        epoch=0, index=1, ids=ids, lanes=rng.integers(0, 3, ids.shape), unit=4, share=0.0, until=1.0
    )
    places = rng.permutation(24 * units)[: 12 * units].reshape(3, 4 * units)
    return Selected(window=window, places=places, units=units, features=None, rng=rng)


@pytest.mark.parametrize("units", [1, 2, 4])
def test_a_unit_has_the_lane_of_its_sample(units):
    given = selected(units)
    lanes = given.window.lanes.reshape(-1).tolist()
    expected = [[lanes[place // units] for place in row] for row in given.places.tolist()]
    assert given.lanes.tolist() == expected


def test_a_setting_is_nothing_a_value_or_a_mapping():
    assert Two.parse(None) == Two()
    assert Two.parse(5) == Two(one=5)
    assert Two.parse({"two": 7}) == Two(two=7)


def test_the_base_class_changes_nothing():
    made, given, batch = Arrangement.parse(None), selected(), {"input_ids": torch.zeros(2, 4)}
    assert made.decide(given.window, CLOCK, 1) == 0 and made.units(3) == 1
    assert not made.cuts and not made.reads
    made.check(batch)
    assert made.lesson(batch, [0, 0], 1) is batch
    places, metrics = made.arrange(given, 1)
    assert places is given.places and metrics == {}
    with pytest.raises(NotImplementedError):
        made.features(batch, 1)
