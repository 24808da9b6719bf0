"""Batches of pieces, put together and taken apart."""

import numpy as np
import pytest
import torch

from attent_stream.arrange.cutting import apart, together
from attent_stream.base.errors import ScoreError

SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
ALL = {"keep": 1.0, "select": "random"}


@pytest.mark.parametrize("length", [8, 11])
def test_together_and_apart_again(length):
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, 99, (12, length)))
    batch = {"input_ids": ids, "labels": ids + 100, "embedded": torch.stack([ids, -ids], dim=-1)}
    which = rng.integers(0, 4, 12).tolist()
    made = together(batch, which, 4)
    assert {name: len(value) for name, value in made.items()} == dict.fromkeys(batch, 3)
    for name, value in apart(made, 4, 3).items():
        assert value.tolist() == [
            batch[name][row, part * (length // 4) :][: length // 4].tolist()
            for row, part in enumerate(which)
        ]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (torch.zeros(4, 3, 8, 8), torch.zeros(4)),
            "arrange.pieces needs input_ids of shape .samples, tokens. in a batch, got a tuple of "
            "2",
        ),
        (
            {"input_ids": torch.ones(4, 8), "domain": torch.zeros(4)},
            r"expected domain of shape \(4, 8\), got shape \(4,\)",
        ),
        (
            {"input_ids": torch.ones(4, 8), "text": ["a"] * 4},
            r"expected text of shape \(4, 8\), got a list",
        ),
        (
            {"input_ids": torch.ones(4, 8), "attention_mask": torch.eye(4, 8)},
            "packed samples without padding",
        ),
        (
            {"input_ids": torch.ones(4, 8), "position_ids": torch.ones(4, 8)},
            "got position_ids in a batch",
        ),
        ({"input_ids": torch.ones(4, 7)}, "samples of at least 8 tokens to cut into 4, got 7"),
        (
            {"input_ids": torch.ones(4, 8), "labels": torch.tensor([[1] * 6 + [1, -100]] * 4)},
            "a label in every piece, got a piece of 2 posi",
        ),
        ({"input_ids": torch.ones(5, 8)}, "expected a batch of 4 rows, one a sample, got 5"),
    ],
)
def test_what_cannot_be_cut(batch, message):
    with pytest.raises(
        ScoreError, match=message + ".*; without arrange.pieces whole samples are trained on"
    ):
        together(batch, [0, 1, 2, 3], 4)


@pytest.mark.parametrize(
    "batch",
    [
        {"input_ids": torch.ones(8, 4)},
        {"input_ids": torch.ones(4, 8), "new": torch.ones(4, 2)},
        [1, 2],
    ],
)
def test_a_batch_that_others_have_changed(batch):
    with pytest.raises(
        ScoreError, match="expected a batch of 4 rows as the collate function made them"
    ):
        apart(batch, 2, 4)
