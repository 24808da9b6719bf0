"""Samples in pieces. Oracles: slices written out, stock training on the very pieces, the run that
is not cut.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loaders import ids_data
from taught import TOKENS, features_of, make_loader, read, run_epochs

from attent_stream import AtteNT
from attent_stream.arrange.pieces import MOST, cut, mixed, pieces_at

SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
ALL = {"keep": 1.0, "select": "random"}


@pytest.mark.parametrize(
    ("share", "pieces"),
    [(1, 1), (0.8, 1), (0.625, 2), (0.5, 2), (0.3, 4), (0.25, 4), (0.1, 8), (1e-9, MOST)],
)
def test_shares_as_powers_of_two(share, pieces):
    assert pieces_at(share) == pieces


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_pieces_stay_in_their_lanes(rows, size, pieces, seed):
    rng = np.random.default_rng(seed)
    positions, lanes = (
        rng.permutation(rows * size).reshape(rows, size),
        rng.integers(0, 3, (rows, size)),
    )
    ours, wanted = cut(positions, pieces), lanes.repeat(pieces, axis=1)
    assert ours.tolist() == [
        [position * pieces + part for position in row for part in range(pieces)]
        for row in positions.tolist()
    ]
    found = mixed(ours, wanted, rng)
    assert sorted(found.flat) == list(range(rows * size * pieces))
    lane_of = dict(zip(ours.flat, wanted.flat, strict=True))
    assert [lane_of[piece] for piece in found.flat] == wanted.reshape(-1).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "more", [{"balance": "starts"}, {}, {"keep": 0.5, "select": "hard", "balance": "starts"}]
)
def test_each_window_is_trained_on_whole(tmp_path, workers, more):
    data = ids_data(tmp_path, 250, shuffle=True, num_canonical_nodes=2, window=12, gap=1)
    whole = run_epochs(make_loader(data, {}, ALL | more | {"pieces": 1.0, "balance": None}), 2)
    ours = run_epochs(make_loader(data, {"num_workers": workers}, ALL | more | {"pieces": 0.25}), 2)
    assert [len(batch) for batch in ours["lessons"]] == [
        4 * len(batch) if len(batch) == 4 else len(batch) for batch in whole["lessons"]
    ]
    step = TOKENS // 4
    spread = []
    for epoch, window, _, ids in (tuple(choice) for choice in ours["choices"]):
        (same,) = (choice for choice in whole["choices"] if choice[:2] == [epoch, window])
        assert sorted(np.unique(ids)) == sorted(np.ravel(same[3])) and np.unique(
            ids, return_counts=True
        )[1].tolist() == [4] * np.size(same[3])
        spread.append(np.mean([len(set(row)) for row in ids]))
    assert np.mean(spread) > 11  # samples of which a batch of 16 pieces is made, of 48 in a window
    lessons = sum(ours["lessons"], [])
    assert sum(ours["lengths"]) >= len(ours["lessons"])
    assert all(start % step == 0 for start in lessons)
    if more.get("keep") is None:
        # The rest of an epoch stays whole.
        expanded = [
            s
            for batch in ours["lessons"]
            for start in batch
            for s in ([start] if len(batch) == 16 else range(start, start + TOKENS, step))
        ]
        assert sorted(expanded) == sorted(list(range(0, 250 * TOKENS, step)) * 2)


def test_pieces_are_balanced(tmp_path):
    data = ids_data(tmp_path, 480, shuffle=True, window=12, gap=1)
    uneven = []
    for balance in (None, "starts"):
        log = run_epochs(make_loader(data, {}, ALL | {"pieces": 0.25, "balance": balance}))
        of = np.array([features_of(np.array(batch)).mean(axis=0) for batch in log["lessons"][12:]])
        uneven.append(((of - of.mean(axis=0)) ** 2).sum())
    assert uneven[1] < 0.5 * uneven[0]


def test_weights_go_with_the_samples(tmp_path):
    data = ids_data(tmp_path, 240, shuffle=True, window=12)
    loader = make_loader(
        data, {}, {"keep": 0.5, "select": "unbiased", "balance": "starts", "pieces": 0.5}
    )
    by_window, taught = {}, 0
    for _ in loader:
        for choice in loader.teach(
            lambda batch: torch.from_numpy(
                features_of(batch["input_ids"][:, 0].numpy()).sum(axis=1) + 1
            )
        ):
            taught += bool((choice.weights != 1).any())
            for number, weight in zip(choice.ids.flat, choice.weights.flat, strict=True):
                assert by_window.setdefault((choice.window.index, number), weight) == weight
        loader.teacher.clock.batches += 1
        ids, weights = loader.epoch.lesson
        index = loader.epoch.segment.choice.window.index
        assert [by_window[index, number] for number in ids] == weights.tolist()
    assert taught


@pytest.mark.parametrize(
    "value",
    [
        0,
        1.5,
        1024,
        0.8,
        "half",
        {"schedule": "step"},
        {"schedule": "linear", "from": 0.75, "to": 1},
    ],
)
def test_settings_out_of_range(value):
    with pytest.raises(ValueError, match="pieces"):
        AtteNT(arrange={"pieces": value})


def state_at(data, teacher, lesson):
    """The state after so many lessons, and what was trained on until then."""
    loader, seen = make_loader(data, {}, teacher), []
    for step, batch in enumerate(loader):
        loader.teach(None)
        seen += read(batch, loader)
        loader.teacher.clock.batches += 1
        if step + 1 == lesson:
            return loader.dataset.state_dict(lesson * 4, True), seen
    raise AssertionError


@pytest.mark.parametrize("lesson", range(6, 19))
def test_a_checkpoint_gone_on_from_without(tmp_path, lesson):
    """Cutting and balancing turned off, or AtteNT taken away, at any place of a window: all is
    trained on once, and soon whole.
    """
    data = ids_data(tmp_path, 200, shuffle=True, window=6, gap=1)
    state, seen = state_at(data, ALL | {"balance": "starts", "pieces": 0.25}, lesson)
    wanted = sorted(range(0, 200 * TOKENS, TOKENS // 4))
    for taught in (True, False):
        other = make_loader(data, {}, ALL | {"pieces": 1.0})
        other.dataset.load_state_dict(state)
        other.teacher.clock.batches = lesson
        if not taught:
            other.attach(None)
        rest, sizes = [], []
        for batch in other:
            if taught:
                other.teach(None)
                other.teacher.clock.batches += 1
            pieces = other.epoch.units
            sizes.append(pieces)
            rest += [
                start + part
                for start in read(batch, other)
                for part in range(0, TOKENS, TOKENS // 4)[: 4 // pieces]
            ]
        assert sorted(seen + rest) == wanted
        assert sizes == sorted(sizes, reverse=True) and sizes.count(4) <= 11
