"""Scores of logits, against the reference."""

import pytest
import torch

from attent_stream.model import reference
from attent_stream.score import chunked, logit_scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_of_logits_that_are_there(dtype, eager, monkeypatch):
    logits = (torch.randn(3, 7, 90, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    labels = torch.randint(0, 90, (3, 7), generator=torch.Generator().manual_seed(1))
    labels[0, :5] = -100
    before, want = logits.clone(), reference.token_scores(logits, labels)
    monkeypatch.setattr(logit_scores, "SMALL", 0)
    monkeypatch.setattr(chunked, "_EAGER_ELEMENTS", 400)
    for got, expected in zip(logit_scores.logit_scores(logits, labels), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)
    for small in (0, 2**22):
        monkeypatch.setattr(logit_scores, "SMALL", small)
        torch.testing.assert_close(
            logit_scores.logit_losses(logits, labels), want[0], rtol=2e-6, atol=2e-6
        )
    assert torch.equal(logits, before)
