"""The reference scores against the formulas in float64."""

import pytest
import torch
from scored_models import generator
from torch.nn import functional as F

from attent_stream.model import reference


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)]
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_token_scores_are_the_formulas(dtype, tolerance, scale):
    logits = (torch.randn(4, 9, 37, generator=generator()) * scale).to(dtype)
    labels = torch.randint(0, 37, (4, 9), generator=generator(1))
    labels[0, :4] = -100
    nll, residual_sq = reference.token_scores(logits, labels)
    exact = logits.double()
    keep = labels != -100
    index = torch.where(keep, labels, 0)
    expected_nll = -exact.log_softmax(-1).gather(-1, index[..., None])[..., 0] * keep
    expected_sq = (exact.softmax(-1) - F.one_hot(index, 37)).square().sum(-1) * keep
    assert (
        nll.dtype
        == residual_sq.dtype
        == (torch.float64 if dtype == torch.float64 else torch.float32)
    )
    torch.testing.assert_close(nll.double(), expected_nll, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(residual_sq.double(), expected_sq, rtol=tolerance, atol=tolerance)
    assert (residual_sq >= 0).all() and (nll >= 0).all()


def test_a_token_that_is_almost_sure_keeps_its_digits():
    logits = torch.tensor([[12.0, 0.0, 0.0], [20.0, 0.0, 1.0]])
    nll, residual_sq = reference.token_scores(logits, torch.zeros(2, dtype=torch.long))
    p = logits.double().softmax(-1)
    expected = (p[:, 1:].sum(-1)) ** 2 + p[:, 1:].square().sum(-1)
    torch.testing.assert_close(residual_sq.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(nll.double(), -torch.log1p(-p[:, 1:].sum(-1)), rtol=1e-5, atol=0)


def test_token_scores_do_not_depend_on_chunks(monkeypatch):
    logits = torch.randn(3, 7, 11, generator=generator())
    labels = torch.randint(0, 11, (3, 7), generator=generator(1))
    whole = reference.token_scores(logits, labels)
    sizes = []
    rows = reference._row_scores
    monkeypatch.setattr(reference, "_CHUNK_ELEMENTS", 25)
    monkeypatch.setattr(
        reference, "_row_scores", lambda z, labels: (sizes.append(z.numel()), rows(z, labels))[1]
    )
    before = logits.clone()
    for chunked, expected in zip(reference.token_scores(logits, labels), whole, strict=True):
        torch.testing.assert_close(chunked, expected, rtol=0, atol=0)
    assert max(sizes) <= 25 and len(sizes) == 11
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 3\), got \(2, 4\)"):
        reference.token_scores(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"target must have shape \(2, 3\), got \(3, 2\)"):
        reference.regression_residual(torch.zeros(2, 3), torch.zeros(3, 2))


def test_sample_mean_counts_valid_entries_only():
    values = torch.tensor([[1.0, 2.0, float("nan")], [5.0, 5.0, 5.0], [4.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    mean = reference.sample_mean(values, mask)
    assert mean[0] == 1.5 and torch.isnan(mean[1]) and mean[2] == pytest.approx(4 / 3)
    assert reference.sample_mean(torch.zeros(0, 3), torch.zeros(0, 3).bool()).shape == (0,)
