"""Hashed n-grams, against a loop over them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.base.errors import ScoreError
from attent_stream.score.ngrams import ABSENT, BUCKETS, ngram_counts, ngram_ids


def hashed(words: tuple[int, ...]) -> int:
    value = 0
    for word in words:
        value = (value * 0x9E3779B1 + word + 1) % 2**32
    return (value * 0x9E3779B1 % 2**32 >> 16) % BUCKETS


@given(
    tokens=st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=5, max_size=5), max_size=4),
    hidden=st.sets(st.integers(0, 4)),
)
def test_each_token_and_each_pair_has_its_bucket(tokens, hidden):
    ids = torch.tensor(tokens, dtype=torch.int64).reshape(-1, 5)
    mask = torch.ones_like(ids)
    mask[:, list(hidden)] = 0
    found = ngram_ids({"input_ids": ids, "attention_mask": mask})
    expected = [
        [ABSENT if i in hidden else hashed((row[i],)) for i in range(5)]
        + [ABSENT if {i, i + 1} & hidden else hashed((row[i], row[i + 1])) for i in range(4)]
        for row in tokens
    ]
    assert found.dtype == np.uint16 and found.shape == (len(tokens), 9)
    assert found.tolist() == expected
    counts = ngram_counts(found)
    assert counts.shape == (BUCKETS,) and counts.sum() == (found != ABSENT).sum()
    assert all(counts[one] for one in found[found != ABSENT])


def test_one_token_has_no_pair():
    assert ngram_ids({"input_ids": torch.tensor([[3], [4]])}).shape == (2, 1)
    assert (ngram_ids({"input_ids": torch.tensor([[-100, 4]])})[0] == ABSENT).tolist() == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "batch", [{"input_ids": torch.zeros(2, 3)}, {"pixels": torch.zeros(2, 3)}, torch.zeros(2, 3)]
)
def test_what_is_no_text_is_refused(batch):
    with pytest.raises(ScoreError, match="resemblance' needs input_ids of shape"):
        ngram_ids(batch)
