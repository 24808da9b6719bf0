"""Gradient norms at the output head, against autograd in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attent_stream.score import grad_norm
from attent_stream.score.grad_norm import HeadInputs, head_grad_norms


def head_inputs(tokens: int, width: int, classes: int, **changes) -> HeadInputs:
    made = torch.Generator().manual_seed(tokens * width)
    labels = torch.randint(classes, (4, tokens), generator=made)
    labels[torch.rand(labels.shape, generator=made) < 0.3] = -100
    labels[2] = -100
    labels[0, 0] = 1
    hidden = torch.randn(4, tokens, width, dtype=torch.float64, generator=made)
    weight = torch.randn(classes, width, dtype=torch.float64, generator=made)
    return HeadInputs(hidden=hidden, weight=weight, labels=labels, **changes)


def autograd_norms(head: HeadInputs) -> list[float]:
    norms = []
    for hidden, labels in zip(head.hidden, head.labels, strict=True):
        weight = head.weight.clone().requires_grad_()
        z = head.scale * F.linear(hidden, weight, head.bias)
        z = z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)
        norm = torch.autograd.grad(F.cross_entropy(z, labels), weight)[0].norm().item()
        norms.append(norm if (labels != -100).any() else np.nan)
    return norms


# Both by products of tokens and by the gradient itself
@pytest.mark.parametrize(("tokens", "width"), [(3, 8), (9, 5), (1, 1)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"softcap": 3.0},
        {"scale": 0.5, "softcap": 2.0},
        {"bias": torch.arange(37.0).double() / 20},
    ],
)
@pytest.mark.parametrize("elements", [2**23, 60])  # all classes at once, and in tiles
def test_grad_norm_is_autograds(monkeypatch, tokens, width, changes, elements):
    monkeypatch.setitem(grad_norm._ELEMENTS, "cpu", elements)
    if elements == 60:
        monkeypatch.setattr(grad_norm, "_TILE", 10)
    head = head_inputs(tokens, width, 37, **changes)
    got = head_grad_norms(head)
    assert got.dtype == torch.float64 and got[2].isnan()
    np.testing.assert_allclose(got, autograd_norms(head), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grad_norm_in_fewer_bits(dtype):
    head = head_inputs(6, 16, 37)
    small = HeadInputs(
        hidden=head.hidden.to(dtype), weight=head.weight.to(dtype), labels=head.labels
    )
    got = head_grad_norms(small)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(
        got, autograd_norms(head), rtol=1e-5 if dtype == torch.float32 else 0.05
    )


def test_what_padding_holds_does_not_count():
    head = head_inputs(6, 8, 37)
    spoilt = head.hidden.masked_fill((head.labels == -100)[..., None], float("nan"))
    changed = HeadInputs(hidden=spoilt, weight=head.weight, labels=head.labels)
    torch.testing.assert_close(head_grad_norms(changed), head_grad_norms(head), equal_nan=True)
    broken = head.hidden.clone()
    broken[0, 0] = float("inf")
    got = head_grad_norms(HeadInputs(hidden=broken, weight=head.weight, labels=head.labels))
    assert not got[0].isfinite() and got[1].isfinite()
