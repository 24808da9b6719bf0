"""Alignments with a target, against autograd in float64."""

import pytest
import torch
from torch.nn import functional as F

from attent_stream.score import grad_norm
from attent_stream.score.alignment import Direction, head_alignments, head_gradient, low_rank
from attent_stream.score.grad_norm import HeadInputs

B, T, D, V = 5, 7, 6, 11


def inputs(dtype=torch.float64, **changes) -> HeadInputs:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, V, (B, T), generator=generator)
    labels[1, :4], labels[2, 3:], labels[4] = -100, -100, -100
    hidden = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64)
    return HeadInputs(
        **{"hidden": hidden.to(dtype), "weight": weight.to(dtype), "labels": labels, **changes}
    )


def gradients(head: HeadInputs) -> torch.Tensor:
    """Each sample's gradient of the output weight, by autograd."""
    found = []
    for hidden, labels in zip(head.hidden.double(), head.labels, strict=True):
        weight = head.weight.double().requires_grad_()
        z = head.scale * F.linear(hidden, weight, head.bias)
        z = z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)
        loss = F.cross_entropy(z, labels, ignore_index=-100)
        found.append(torch.autograd.grad(loss, weight)[0])
    return torch.stack(found)


HEADS = {
    "plain": {},
    "bias": {"bias": torch.linspace(-1, 1, V, dtype=torch.float64)},
    "softcap": {"softcap": 2.5},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("how", HEADS)
@pytest.mark.parametrize("elements", [2**23, 20])
def test_they_are_inner_products_of_gradients(how, elements, monkeypatch):
    """With all classes at once, and in tiles of a few."""
    monkeypatch.setitem(grad_norm._ELEMENTS, "cpu", elements)
    monkeypatch.setattr(grad_norm, "_TILE", 4)
    head, generator = inputs(**HEADS[how]), torch.Generator().manual_seed(4)
    left, right = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((V, 3), (3, D))
    )
    found, expected = head_alignments(head, Direction(left=left, right=right)), gradients(head)
    wanted = (expected * (left @ right)).sum(dim=(1, 2))
    torch.testing.assert_close(found[:4], wanted[:4], rtol=1e-10, atol=1e-12)
    assert found[4].isnan()
    torch.testing.assert_close(head_gradient(head), expected[:4].mean(0), rtol=1e-10, atol=1e-12)


def test_half_precision_is_near():
    head, exact = inputs(torch.bfloat16), inputs()
    direction = low_rank(head_gradient(exact))
    found, wanted = head_alignments(head, direction), head_alignments(exact, direction)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:4].double(), wanted[:4], rtol=0.1, atol=0.02)


def test_a_matrix_of_low_rank_is_kept_whole():
    generator = torch.Generator().manual_seed(5)
    thin = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((40, 3), (3, 30))]
    matrix = thin[0] @ thin[1]
    found = low_rank(matrix, rank=4)
    assert found.left.shape == (40, 4) and found.right.shape == (4, 30)
    torch.testing.assert_close(found.left @ found.right, matrix)
    noisy = matrix + 0.01 * torch.randn(40, 30, generator=generator, dtype=torch.float64)
    best = torch.linalg.svdvals(noisy)[8:].norm()
    found = low_rank(noisy, rank=8)
    assert (found.left @ found.right - noisy).norm() < 1.1 * best
    assert low_rank(matrix[:2]).left.shape == (2, 2)
    again = low_rank(noisy, rank=8)
    assert torch.equal(again.left, found.left) and torch.equal(again.right, found.right)
