"""Batches of every form are counted and split."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_models import INPUTS
from transformers import BatchEncoding

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import batch_length, split_batch

Pair = namedtuple("Pair", "x y")


def test_batches_of_every_form_are_split():
    x, y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
    scalar, names = torch.tensor(3.0), list("abcde")
    assert [len(part) for part in split_batch(x, 2)] == [2, 2, 1]
    parts = split_batch(
        {"x": x, "n": names, "mode": "text", "s": scalar, "other": [1, 2], "in": {"y": y}}, 3
    )
    assert [list(part) for part in parts] == [["x", "n", "mode", "s", "other", "in"]] * 2
    assert parts[1]["n"] == ["d", "e"] and parts[1]["mode"] == "text" and parts[1]["s"] is scalar
    assert parts[1]["other"] == [1, 2] and parts[1]["in"]["y"].tolist() == [3, 4]
    for form in (tuple, list):
        parts = split_batch(form([x, y]), 3)
        assert [type(part) for part in parts] == [form] * 2 and parts[1][1].tolist() == [3, 4]
    assert split_batch(Pair(x, y), 4)[1].y.tolist() == [4]
    encoding = BatchEncoding({"input_ids": x, "labels": y})
    assert batch_length(encoding) == 5 and split_batch(encoding, 4)[1]["labels"].tolist() == [4]
    assert split_batch(encoding, 5)[0] is encoding
    two = split_batch(((x[:2], x[:2] + 1), y[:2]), 1)  # two inputs, two samples
    assert len(two[1][0]) == 2 and torch.equal(two[1][0][1], x[1:2] + 1)
    ragged = split_batch(([x[:1], x[:3]], y[:2]), 1)  # a list of samples of different lengths
    assert torch.equal(ragged[1][0][0], x[:3]) and ragged[1][1].tolist() == [1]
    assert batch_length(OrderedDict(list_of_tensors=[x, x], labels=y)) == 5
    assert batch_length({"rope": torch.zeros(3, 5), "labels": y}) == 5


@given(st.integers(1, 20), st.integers(1, 25))
@settings(deadline=None)
def test_parts_are_whole_and_in_order(length, size):
    batch = {"x": torch.arange(length), "n": list(range(length))}
    parts = split_batch(batch, size)
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert sum((part["n"] for part in parts), []) == batch["n"]
    assert [batch_length(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert 1 <= batch_length(parts[-1]) <= size


def test_mistakes_in_splitting():
    with pytest.raises(ValueError, match="microbatch must be an integer of at least 1, got 0"):
        split_batch(INPUTS, 0)
    for bad in ({"a": 1}, "text", (), torch.tensor(1.0)):
        with pytest.raises(ScoreError, match="must hold a tensor"):
            batch_length(bad)
