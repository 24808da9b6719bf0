"""Rows of batches, as far as they can be told from samples. Oracles: batches whose rows are known,
collate functions that sort.
"""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import default_collate

from attent_stream.data.rows import miscounted, reordered

EIGHT, TWO = torch.zeros(8, 3), torch.zeros(2, 12)


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (EIGHT, None),
        ({"input_ids": EIGHT, "labels": EIGHT}, None),
        (UserDict(x=EIGHT), None),
        ((EIGHT, torch.zeros(8)), None),
        (([torch.zeros(3, 5)] * 8, [{"boxes": torch.zeros(2, 4)}] * 8), None),  # detection
        ([{"image": torch.zeros(3, 5)}] * 8, None),
        ({"patches": torch.zeros(77, 5), "sizes": [9] * 8}, None),  # ragged images
        ({"patches": torch.zeros(77, 5), "meta": {"label": np.zeros(8)}}, None),
        (torch.tensor(3.0), None),
        ({"loss": 1.0, "name": "eight"}, None),
        (
            {"graph": object(), "nodes": torch.zeros(77, 5)},
            None,
        ),  # nobody knows what an object holds
        (pack_sequence([torch.zeros(3)] * 8), None),
        ({"input_ids": TWO, "labels": TWO}, 2),
        ((TWO, torch.zeros(2)), 2),
        ({"image": EIGHT[:7], "label": torch.zeros(7)}, 7),
        ({"image": [torch.zeros(3, 5)] * 7, "label": np.zeros(7)}, 7),
        ({"image": [EIGHT] * 7, "label": np.zeros(7)}, None),  # a length that fits by chance
        (torch.zeros(16, 3), 16),  # two views of each, one under the other
        ({"x": torch.zeros(0, 3)}, 0),
        ([], 0),
    ],
)
def test_rows_are_counted_where_it_is_certain(batch, rows):
    assert miscounted(batch, 8) == rows


def by_length(samples: list[dict]) -> dict:
    return default_collate(sorted(samples, key=lambda sample: sample["length"]))


def of_lengths(*lengths: int) -> list[dict]:
    return [{"length": length, "id": number} for number, length in enumerate(lengths)]


@pytest.mark.parametrize(
    ("collate", "samples", "own"),
    [
        (by_length, of_lengths(5, 3, 9, 4), True),
        (default_collate, of_lengths(5, 3, 9, 4), False),
        (by_length, of_lengths(3, 4, 5, 9), True),  # sorted already: the reverse tells
        (default_collate, of_lengths(7), False),
        (lambda samples: "words", of_lengths(5, 3), False),  # nothing tells
        (lambda samples: torch.ones(len(samples), 2), of_lengths(5, 3), False),
    ],
)
def test_an_order_of_its_own_is_seen_by_samples_in_reverse(collate, samples, own):
    assert reordered(collate(samples), collate(samples[::-1]), len(samples)) == own


def test_what_is_drawn_says_nothing():
    rng = np.random.default_rng(2)
    drawn, others = (torch.from_numpy(rng.normal(size=4)) for _ in range(2))
    assert not reordered(drawn, others, 4)
    assert not reordered({"x": drawn}, {"y": drawn}, 4)
    assert reordered({"x": drawn, "y": drawn}, {"x": others, "y": drawn}, 4)


def test_one_part_that_follows_the_samples_is_enough():
    """Such as ids beside what is sorted within."""

    def collate(samples):
        return default_collate(samples) | {"sorted": by_length(samples)["length"]}

    samples = of_lengths(5, 3, 9, 4)
    for made in (collate, lambda some: dict(reversed(collate(some).items()))):
        assert not reordered(made(samples), made(samples[::-1]), 4)
