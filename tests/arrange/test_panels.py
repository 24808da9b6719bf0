"""Panels of a window. Oracles: counting, and a window that is balanced panel by panel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taught import OneOfMany

from attent_stream.arrange import balance
from attent_stream.arrange.arrangement import Selected
from attent_stream.arrange.balance import Balance, balance_lanes, imbalance
from attent_stream.arrange.panels import Panels
from attent_stream.base.gather import RankGroup
from attent_stream.window.choice import Window

ROWS, SIZE, UNITS = 6, 24, 2


@given(
    rows=st.integers(1, 5),
    size=st.integers(1, 40),
    units=st.sampled_from([1, 2, 4]),
    most=st.integers(1, 200),
    lanes=st.integers(1, 8),
    ranks=st.integers(1, 60),
)
def test_panels_divide_the_slots_and_ranks_share_the_panels(rows, size, units, most, lanes, ranks):
    labels = np.broadcast_to(np.arange(size) % lanes, (rows, size))
    panels = Panels.of(labels, units, most)
    sizes = np.bincount(panels.of_slot, minlength=panels.count)
    assert len(sizes) == panels.count and sizes.min() > 0
    assert (sizes * rows * units <= most).all() or sizes.max() == 1
    assert panels.count == -(-size // max(1, most // (rows * units)))
    # A lane is cut only where a panel ends within it
    pairs = {(int(p), int(lane)) for p, lane in zip(panels.of_slot, labels[0], strict=True)}
    assert len(pairs) <= panels.count + min(lanes, size) - 1
    shares = {panel: [] for panel in range(panels.count)}
    for rank in range(ranks):
        group = RankGroup(rank=rank, ranks=ranks)
        slots = panels.slots(group)
        assert (np.diff(slots) > 0).all()
        held = np.unique(panels.of_slot[slots])
        assert len(slots) == sizes[held].sum()  # whole panels
        assert len(held) <= -(-panels.count // ranks)
        for panel in held:
            shares[int(panel)].append(panels.share(group))
    for found in shares.values():
        assert sorted(found) == [(number, len(found)) for number in range(len(found))]


def selected(group: RankGroup, made: Balance, keep: int) -> Selected:
    """A window in pieces, of which some rows are kept, and the features that a rank has of it."""
    rng = np.random.default_rng(7)
    lanes = np.broadcast_to(np.arange(SIZE) % 3, (ROWS, SIZE))
    ids = np.arange(ROWS * SIZE).reshape(ROWS, SIZE)
    window = Window(epoch=0, index=1, ids=ids, lanes=lanes, unit=SIZE, share=0, until=1)
    features = rng.integers(0, 30, (ROWS, SIZE, UNITS, 4)).astype(np.float16)
    rows = np.sort(rng.permutation(ROWS)[:keep])
    places = (rows[:, None] * SIZE + np.arange(SIZE))[..., None] * UNITS + np.arange(UNITS)
    places = places.reshape(keep, -1)
    for lane in range(3):  # pieces are mixed within their lanes
        of = lanes.reshape(-1)[places // UNITS] == lane
        places[of] = rng.permutation(places[of])
    slots = made.slots(window, UNITS, group)
    known = features if slots is None else features[:, slots]
    return Selected(
        window=window,
        places=places,
        units=UNITS,
        features=known.reshape(ROWS, -1, 4),
        rng=rng,
        group=group,
    )


@pytest.mark.parametrize("keep", [ROWS, 4])
@pytest.mark.parametrize("panel", [1, 40, 100, 10**6])
def test_any_number_of_ranks_finds_the_same_order(monkeypatch, panel, keep):
    monkeypatch.setattr(balance, "PANEL", panel)
    monkeypatch.setattr(balance, "BLOCK", 16)
    made = Balance()
    whole, metrics = made.arrange(selected(RankGroup(), made, keep), 1)
    given = selected(RankGroup(), made, keep)
    assert sorted(whole.reshape(-1)) == sorted(given.places.reshape(-1))
    lanes = replace(given, places=whole).lanes
    np.testing.assert_array_equal(lanes, given.lanes)
    for ranks in (2, 3, 5, 16):
        total = np.zeros_like(whole)
        for rank in range(ranks):
            group = OneOfMany(rank=rank, ranks=ranks)
            part, told = made.arrange(selected(group, made, keep), 1)
            assert bool(told) == (rank == 0)
            total += part
        np.testing.assert_array_equal(total, whole)
    # Panel by panel, with all features
    panels = Panels.of(given.window.lanes, UNITS, panel)
    features, places = given.features, given.places  # of a rank that is alone: all
    expected = np.zeros_like(places)
    for number in range(panels.count):
        of = panels.of_slot[places // UNITS % SIZE] == number
        expected += balance_lanes(places, given.lanes, features, np.where(of, places, -1))
    np.testing.assert_array_equal(whole, expected)
    # One rank's metric is of everything
    assert metrics["imbalance"] == pytest.approx(imbalance(whole, features))


def test_panels_are_balanced():
    rng = np.random.default_rng(1)
    features = rng.integers(0, 50, (8, 64, 6))
    places = rng.permutation(512).reshape(8, 64)
    panel = places % 64 // 16
    own = [
        balance_lanes(places, np.zeros_like(places), features, np.where(panel == n, places, -1))
        for n in range(4)
    ]
    assert imbalance(sum(own), features) < 0.2 < 0.5 < imbalance(places, features)


def test_imbalance_of_batches_of_unlike_sizes():
    """Random batches have 1 on average, whatever their sizes."""
    rng = np.random.default_rng(1)
    features, found = rng.integers(0, 50, (32, 8, 6)), []
    for _ in range(200):
        rows = rng.permutation(256).reshape(32, 8)
        for row, size in enumerate(rng.integers(1, 9, 32)):
            rows[row, size:] = -1
        found.append(imbalance(rows, features))
    assert np.mean(found) == pytest.approx(1, abs=0.03)
