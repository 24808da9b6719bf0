"""Sorted rows. Oracles: loops over rows, and the batches of the run that is not sorted."""

import numpy as np
import pytest
import torch
from corpora import write_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from taught import make_loader, run_epochs

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.sort import Sort, cut_to, rows_by_length, sorted_by
from attent_stream.base.errors import ScoreError

COUNT = 83


def batch_of(lengths, width=None, first=0) -> dict:
    """Tokens 1, 2, ..., of which the first ones are not predicted."""
    lengths = torch.tensor(lengths)
    present = torch.arange(width or int(lengths.max())) < lengths[:, None]
    tokens = present.long().cumsum(1) * present
    return {
        "input_ids": tokens,
        "attention_mask": present.long(),
        "labels": torch.where(tokens > first, tokens, -100),
        "id": torch.arange(len(lengths)),
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(0, 9), st.integers(0, 4))
def test_rows_are_sorted_and_micro_batches_keep_every_token(lengths, more, first):
    batch = batch_of(lengths, max(lengths) + more, first)
    rows = rows_by_length(batch)
    after = sorted_by(batch, rows)
    wanted = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # sorted() is stable
    assert rows.order.tolist() == wanted == after["id"].tolist()
    assert rows.lengths.tolist() == [lengths[row] for row in wanted]
    assert rows.labels.tolist() == [max(0, lengths[r] - max(1, first)) for r in wanted]
    for begin in range(len(lengths)):
        for end in range(begin + 1, len(lengths) + 1):
            width = rows.width_of(begin, end)
            longest = max(lengths[row] for row in wanted[begin:end])
            power = next(p for p in (64, 32, 16, 8, 4, 2, 1) if rows.width % p == 0)
            assert longest <= width <= rows.width and width < longest + power
            assert width % power == 0
            part = {name: value[begin:end] for name, value in after.items()}
            cut = cut_to(part, rows.width, width)
            assert cut["input_ids"].shape == (end - begin, width)
            assert cut["input_ids"].sum() == part["input_ids"].sum()
            assert cut["id"] is part["id"]


def test_a_batch_in_order_is_not_copied():
    batch = batch_of([5, 5, 2])
    assert sorted_by(batch, rows_by_length(batch)) is batch


def test_a_batch_with_a_sample_without_labels_is_left_alone():
    assert Sort().rows(batch_of([5, 3], first=2), 1) is not None
    assert Sort().rows(batch_of([5, 3], first=3), 1) is None
    assert Sort().rows(batch_of([5, 1]), 1) is None


def test_lists_and_columns_follow_the_rows():
    batch = batch_of([2, 7, 4]) | {"name": ["a", "b", "c"], "pair": ("x", "y", "z"), "scale": 2.0}
    after = sorted_by(batch, rows_by_length(batch))
    assert after["name"] == ["b", "c", "a"] and after["pair"] == ("y", "z", "x")
    assert after["scale"] == 2.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}, "padding at the end"),
        ({"labels": torch.tensor([[1, 2, 7], [1, 2, 3]])}, "without labels"),
        ({"bias": torch.zeros(2, 1, 3, 3)}, r"expected bias of shape \(2, 3\)"),
        ({"bias": torch.zeros(3)}, "expected bias"),
        ({"input_ids": None}, "needs input_ids"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_and_left_alone(changed, message):
    batch = batch_of([2, 3]) | changed
    with pytest.raises(ScoreError, match=message):
        Sort().check(batch)
    assert Sort().rows(batch, 1) is None


def test_a_bad_value_is_named():
    with pytest.raises(ValueError, match="must be length, got 'size'"):
        Arrangements.parse({"sort": "size"})


def test_tokens_without_labels_are_predicted_but_the_first():
    batch = batch_of([2, 3])
    del batch["labels"]
    assert rows_by_length(batch).labels.tolist() == [2, 1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("also", [{}, {"group": "length"}])
def test_batches_keep_their_samples(tmp_path, workers, also):
    folder = write_ids(tmp_path / "data", COUNT)
    data = {"local": folder, "batch_size": 4, "shuffle": True, "window": 4, "gap": 1}
    loader = {"num_workers": workers}
    # ``run_epochs`` checks that the ids of a batch are those that the loader tells
    before = run_epochs(make_loader(data, loader, {"keep": 1, "group": None, **also}))["lessons"]
    after = run_epochs(
        make_loader(data, loader, {"keep": 1, "group": None, **also, "sort": "length"})
    )
    assert [sorted(one) for one in after["lessons"]] == [sorted(one) for one in before]
    assert after["lessons"] != before


def test_weights_follow_the_rows(tmp_path):
    folder = write_ids(tmp_path / "data", COUNT)
    data = {"local": folder, "batch_size": 4, "shuffle": True, "window": 4, "gap": 1}
    told = []
    for more in ({}, {"sort": "length"}):
        loader = make_loader(data, {}, {"select": "unbiased", "group": None, **more})
        found = {}
        for batch in loader:
            loader.teach(lambda b: b["difficulty"])
            ids, weights = loader.epoch.lesson
            assert batch["id"].tolist() == ids.tolist()
            found |= dict(zip(ids.tolist(), np.round(weights, 4).tolist(), strict=True))
            loader.teacher.clock.batches += 1
        told.append(found)
    assert told[0] == told[1] and len(set(told[0].values())) > 1
