"""Collators that cut or mask the tokens of samples."""

import numpy as np
import pytest
import torch

from attent_stream.corpus.batches import TokenCollator
from attent_stream.launch.collators import CutTokens, MaskTokens


def test_mask_tokens_hides_its_share_the_same_way_in_any_company():
    collate = MaskTokens(
        collate=TokenCollator(), mask_token_id=999, vocab_size=900, probability=0.2, seed=4
    )
    rng = np.random.default_rng([8])
    samples = [{"tokens": rng.integers(0, 900, 512, dtype=np.uint16)} for _ in range(32)]
    batch = collate(samples)
    hidden = batch["labels"] != -100
    original = torch.from_numpy(np.stack([sample["tokens"] for sample in samples]).astype(np.int64))
    assert torch.equal(batch["labels"][hidden], original[hidden])
    assert torch.equal(batch["input_ids"][~hidden], original[~hidden])
    assert abs(hidden.float().mean() - 0.2) < 0.01
    assert abs((batch["input_ids"][hidden] == 999).float().mean() - 0.8) < 0.03
    assert abs((batch["input_ids"][hidden] == original[hidden]).float().mean() - 0.1) < 0.03
    alone = collate([samples[5]])
    assert torch.equal(alone["input_ids"][0], batch["input_ids"][5]) and torch.equal(
        alone["labels"][0], batch["labels"][5]
    )


def samples_of(seed: int, count: int = 4, length: int = 64) -> list[dict]:
    rng = np.random.default_rng([seed])
    return [{"tokens": rng.integers(0, 900, length, dtype=np.uint16)} for _ in range(count)]


def test_a_mask_changes_with_the_epoch_and_comes_back():
    collate = MaskTokens(collate=TokenCollator(), mask_token_id=999, vocab_size=900)
    samples = samples_of(3)
    batches = []
    for epoch in (0, 1, 0):
        collate.set_epoch(epoch)
        batches.append(collate(samples)["labels"])
    assert torch.equal(batches[0], batches[2]) and not torch.equal(batches[0], batches[1])


@pytest.mark.parametrize("probability", [0, 1])
def test_a_mask_of_nothing_or_all_is_refused(probability):
    with pytest.raises(ValueError, match="expected probability between 0 and 1"):
        MaskTokens(collate=len, mask_token_id=1, vocab_size=2, probability=probability)


@pytest.mark.parametrize("raw", [False, True])
def test_cut_tokens_keeps_the_first_ones(raw):
    samples = samples_of(5)
    given = [{"tokens": s["tokens"].tobytes()} for s in samples] if raw else samples
    cut = CutTokens(collate=TokenCollator(), max_seq_len=10, dtype="uint16" if raw else None)
    expected = np.stack([sample["tokens"][:10] for sample in samples])
    assert np.array_equal(cut(given)["input_ids"].numpy(), expected)
    assert cut.packed and not CutTokens(collate=len, max_seq_len=1).packed
