"""Sorted rows. Oracle: loops over rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BatchEncoding

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.sort import Sort, cut_to, rows_by_length, sorted_by
from attent_stream.base.errors import ScoreError


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
            cut = cut_to(part, width)
            assert cut["input_ids"].shape == (end - begin, width)
            assert cut["input_ids"].sum() == part["input_ids"].sum()
            assert cut["id"] is part["id"]


def test_rows_go_back_into_their_order():
    rows = rows_by_length(batch_of([2, 7, 4]))
    assert not rows.in_order and rows.unsorted.in_order
    assert rows.unsorted.lengths.tolist() == [2, 7, 4]
    assert rows.unsorted.width_of(0, 1) == 2


def test_a_batch_in_order_is_not_copied():
    batch = batch_of([5, 5, 2])
    assert sorted_by(batch, rows_by_length(batch)) is batch


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
        ({"bias": torch.zeros(2, 1, 3, 3)}, "how to do so with bias"),
        ({"bias": torch.zeros(3)}, "how to do so with bias"),
        ({"input_ids": None}, "needs input_ids"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused(changed, message):
    batch = batch_of([2, 3]) | changed
    with pytest.raises(ScoreError, match=message):
        Sort().check(batch)


def test_a_bad_value_is_named():
    with pytest.raises(ValueError, match="must be length, got 'size'"):
        Arrangements.parse({"sort": "size"})


def test_tokens_without_labels_are_predicted_but_the_first():
    batch = batch_of([2, 3])
    del batch["labels"]
    assert rows_by_length(batch).labels.tolist() == [2, 1]


def test_what_is_not_known_to_have_positions_is_kept_or_refused():
    batch = batch_of([2, 7, 4]) | {"feats": torch.ones(3, 5), "scores": torch.ones(3)}
    cut = cut_to(sorted_by(batch, rows_by_length(batch)), 5)
    assert {name: len(value[0]) for name, value in cut.items() if value.ndim > 1} == {
        "input_ids": 5,
        "attention_mask": 5,
        "labels": 5,
        "feats": 5,
    }
    assert all(value.is_contiguous() for value in cut.values())
    with pytest.raises(ScoreError, match="how to do so with feats"):
        rows_by_length(batch | {"feats": torch.ones(3, 7)})
    for images in (torch.ones(4, 9), [torch.ones(4, 9)], {"a": torch.ones(2)}, ["x", "y"]):
        with pytest.raises(ScoreError, match="how to do so with images"):
            rows_by_length(batch | {"images": images})


def test_a_batch_keeps_its_class():
    batch = BatchEncoding(batch_of([2, 7, 4]))
    rows = rows_by_length(batch)
    after = cut_to(sorted_by(batch, rows), 7)
    assert isinstance(after, BatchEncoding) and after.input_ids.shape == (3, 7)
    assert after["id"].tolist() == [1, 2, 0] and batch["id"].tolist() == [0, 1, 2]
