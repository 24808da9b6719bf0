"""Features of samples. Oracle: exact counts."""

import numpy as np
import pytest
import torch

from attent_stream.arrange.features import WIDTH, token_counts
from attent_stream.base.errors import ScoreError


def test_counts_of_few_words_are_exact():
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, WIDTH, (5, 300)))
    mask = torch.arange(300)[None] < torch.tensor([300, 20, 0, 7, 299])[:, None]
    counted = token_counts({"input_ids": tokens, "attention_mask": mask.long()})
    assert counted.dtype == torch.float16
    for row, ids, present in zip(counted.numpy(), tokens.numpy(), mask.numpy(), strict=True):
        assert row.tolist() == np.bincount(ids[present], minlength=WIDTH).tolist()


def test_counts_of_many_words_keep_their_products():
    """Hashed with signs: the products of two samples' counts are right but for noise that no sample
    has on its side.
    """
    rng = np.random.default_rng(3)
    tokens = (rng.zipf(1.3, (64, 512)) - 1).clip(max=49_999)
    exact = np.zeros((64, 50_000))
    for row, ids in zip(exact, tokens, strict=True):
        np.add.at(row, ids, 1)
    hashed = token_counts({"input_ids": torch.from_numpy(tokens)}).double().numpy()
    apart = ~np.eye(64, dtype=bool)
    off = (hashed @ hashed.T - exact @ exact.T)[apart] / (exact @ exact.T)[apart].mean()
    assert abs(off.mean()) < 0.02 and off.std() < 0.1


def test_counts_too_high_for_float16_are_cut():
    assert token_counts({"input_ids": torch.zeros(1, 5000, dtype=torch.int64)})[0, 0] == 2048


@pytest.mark.parametrize(
    "batch",
    [
        {"pixels": torch.zeros(2, 3)},
        (torch.zeros(2, 3), torch.zeros(2)),
        {"input_ids": torch.zeros(2, 3)},
    ],
)
def test_a_batch_without_tokens(batch):
    with pytest.raises(ScoreError, match="balance 'tokens' needs input_ids of shape"):
        token_counts(batch)
