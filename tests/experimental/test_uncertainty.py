"""Scores of uncertainty. Oracles: torch's distributions, a loop in float64."""

import numpy as np
import pytest
import torch

from attent_stream.experimental import uncertainty
from attent_stream.experimental.uncertainty import ENTROPY, MARGIN, entropies, margins
from attent_stream.model.reading import CLASSES
from attent_stream.model.reference import IGNORED
from attent_stream.score.scores import SCORES

ROWS, CLASSES_OF = 6, 5


@pytest.fixture
def logits() -> torch.Tensor:
    made = torch.Generator().manual_seed(3)
    return 4 * torch.randn(ROWS, CLASSES_OF, dtype=torch.float64, generator=made)


def test_entropies_are_torchs(logits):
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropies(logits, None), expected)
    sure = torch.tensor([[1e4, 0.0, -1e4]], dtype=torch.float64)
    assert entropies(sure, None).tolist() == [0.0]
    assert entropies(torch.zeros(1, 8), None).item() == pytest.approx(np.log(8))


def test_margins_are_positive_where_the_model_is_wrong(logits):
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    found = margins(logits, labels)
    for row, label, margin in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        others = [value for index, value in enumerate(row) if index != label]
        assert margin == pytest.approx(max(others) - row[label])
        assert (margin > 0) == (int(np.argmax(row)) != label)


@pytest.mark.parametrize(("score", "rows"), [(ENTROPY, entropies), (MARGIN, margins)])
def test_a_score_is_the_mean_over_valid_tokens(logits, score, rows):
    batch, labels = logits.reshape(2, 3, CLASSES_OF), torch.tensor([[1, IGNORED, 4], [0, 2, 3]])
    found = score.outputs[CLASSES](batch, labels)
    for sample in range(2):
        valid = labels[sample] != IGNORED
        expected = rows(batch[sample][valid], labels[sample][valid]).mean()
        torch.testing.assert_close(found[sample], expected, check_dtype=False)


@pytest.mark.slow
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
