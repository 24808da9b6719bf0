"""Entropy and margin: chunks of rows, and softmaxes with zeros."""

import numpy as np
import pytest
import torch

from attent_stream.experimental import uncertainty
from attent_stream.score.scores import SCORES


@pytest.mark.parametrize("score", ["entropy", "margin"])
def test_rows_in_parts_and_compiled(monkeypatch, score):
    logits = torch.randn(7, 5, 11, generator=torch.Generator().manual_seed(3))
    labels = torch.randint(11, (7, 5), generator=torch.Generator().manual_seed(4))
    labels[1, 2:] = -100
    rows = SCORES.get(score).outputs["classes"]
    whole = rows(logits, labels)
    monkeypatch.setattr(uncertainty, "SMALL", 33)  # three rows at once, by the compiled pass
    torch.testing.assert_close(rows(logits, labels), whole)


def test_entropy_of_a_sure_model_is_finite():
    z = torch.tensor([[0.0, float("-inf"), float("-inf")], [0.0, 0.0, float("-inf")]])
    torch.testing.assert_close(
        uncertainty.entropies(z, torch.zeros(2, dtype=torch.long)),
        torch.tensor([0.0, np.log(2)]).float(),
    )
