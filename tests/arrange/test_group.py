"""Batches of similar length. Oracles: sorting lane by lane, and the run that is not grouped."""

import numpy as np
import pytest
import torch
from corpora import write_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from taught import AsChat, length_of, make_loader, run_epochs

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.group import Group, group_lanes, padding
from attent_stream.base.errors import ScoreError

COUNT = 371


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", COUNT)


@settings(max_examples=80)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 1 << 30))
def test_each_lane_is_sorted_over_the_same_rows(rows, size, lanes, seed):
    rng = np.random.default_rng(seed)
    places = rng.permutation(rows * size).reshape(rows, size)
    lane = rng.integers(0, lanes, (rows, size))
    lengths = rng.integers(1, 9, (rows, size))
    found = group_lanes(places, lane, lengths, np.random.default_rng(seed))
    length_at = dict(zip(places.flat, lengths.flat, strict=True))
    turn = np.random.default_rng(seed).permutation(rows).argsort()
    for one in range(lanes):
        before, after = places[lane == one], found[lane == one]
        assert sorted(before) == sorted(after)
        in_turn = [length_at[p] for row in turn for p in found[row][lane[row] == one]]
        assert in_turn == sorted(in_turn)


def test_lessons_of_one_length_are_mixed():
    places = np.arange(400).reshape(40, 10)
    same = np.zeros_like(places)
    found = group_lanes(places, same, same + 7, np.random.default_rng(1))
    assert sorted(found.flat) == list(range(400))
    assert abs(np.corrcoef(found.flat, places.flat)[0, 1]) < 0.15
    # The longest are in any row
    first = [
        group_lanes(places, same, places, np.random.default_rng(seed))[0, 0] for seed in range(20)
    ]
    assert len(set(first)) > 10


def test_padding_of_batches():
    assert padding(np.array([[4, 4], [2, 2]])) == 0
    assert padding(np.array([[4, 2], [3, 3]])) == pytest.approx(1 / 7 * 1)
    assert padding(np.zeros((2, 2), np.int64)) == 1


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 2049, 65537, 1 << 20])
def test_lengths_survive_half_precision(length):
    batch = {"input_ids": torch.zeros(1, max(1, length), dtype=torch.int8)}
    batch["attention_mask"] = torch.ones(1, max(1, length), dtype=torch.bool)
    batch["attention_mask"][:, length:] = False
    high, low = Group().features(batch, 1)[0].tolist()
    assert high * 1024 + low == length


@pytest.mark.parametrize(("workers", "first"), [(0, False), (2, False), (2, True)])
def test_an_epoch_has_the_same_samples_and_less_padding(folder, workers, first):
    data = {"local": folder, "batch_size": 4, "shuffle": True, "window": 8, "gap": 2}
    plain = run_epochs(make_loader(data, {}, {"keep": 1, "group": None}))["lessons"]
    loader = make_loader(data, {"num_workers": workers}, {"keep": 1, "group": "length"})
    if not first:
        loader.teacher.first_features = None
    found = run_epochs(loader)
    lessons = found["lessons"]
    # A window keeps its samples. What follows the last full row stays as it is
    assert (lessons[:8] == plain[:8]) != first and lessons[-1] == plain[-1]
    for begin in range(0, COUNT // 4, 8):
        some = slice(begin, min(begin + 8, COUNT // 4))
        assert sorted(sum(lessons[some], [])) == sorted(sum(plain[some], []))
    positions = [
        sum(min(32, max(map(length_of, batch))) * len(batch) for batch in of)
        for of in (plain, lessons)
    ]
    assert positions[1] < (0.74 if first else 0.78) * positions[0]
    assert not found["scored"]


def test_it_is_told_how_much_is_padded(folder):
    data = {"local": folder, "batch_size": 4, "shuffle": True, "window": 8, "gap": 2}
    loader = make_loader(data, {}, {"keep": 1, "group": "length"})
    told = []
    for _ in loader:
        told += [choice.metrics for choice in loader.teach(lambda batch: batch["difficulty"])]
        loader.teacher.clock.batches += 1
    assert len(told) > 5 and 0 <= np.median([one["padding"] for one in told]) < 0.25


def test_what_cannot_be_grouped_is_refused():
    def batch(*lengths, width=None):
        samples = [{"id": 0}] * len(lengths)
        made = AsChat()(samples)
        width = width or max(lengths)
        made["input_ids"] = torch.ones(len(lengths), width, dtype=torch.int64)
        made["attention_mask"] = torch.arange(width) < torch.tensor(lengths)[:, None]
        return made

    Group().check(batch(3, 5, 4))
    Group().check(batch(3, 5, 4, width=128))
    with pytest.raises(ScoreError, match="needs padded samples, got 3 of one length"):
        Group().check(batch(4, 4, 4))
    with pytest.raises(ScoreError, match="longest sample, got 200 positions for 5 tokens"):
        Group().check(batch(3, 5, width=200))
    with pytest.raises(ScoreError, match="arrange.group 'length' needs input_ids"):
        Group().check({"pixel_values": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(ValueError, match="arrange.group must be length, got 'size'"):
        Arrangements.parse({"group": "size"})
    with pytest.raises(ValueError, match="one arrangement that reads features"):
        Arrangements.parse({"group": "length", "balance": "tokens"})
