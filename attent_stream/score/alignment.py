"""Alignment: by how much a step on a sample would lower the target's loss, to first order.

A step of Adam on sample i changes the output weight W by ``-lr * P * g_i``, where ``g_i`` is the
sample's gradient and ``P = 1 / (sqrt(v) + eps)`` with Adam's second moments v. The target's loss,
whose gradient is G, changes by ``-lr * <P * G, g_i>``. With the hidden states ``h_t`` and residuals
``r_t = p_t - y_t`` of the sample's n labelled tokens that is the mean of ``r_t^T (P * G) h_t``,
which needs no gradient of a sample. ``P * G`` is kept as a product of two thin matrices.

In the space of the optimizer's updates: OPUS (Wang et al., arXiv 2602.05400). Against a validation
gradient: GREATS (Wang et al., NeurIPS 2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attent_stream.model.reference import IGNORED
from attent_stream.score.grad_norm import HeadInputs, chunks_of, head_tiles

RANK = 32


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A matrix of the output weight's shape, as a product of two thin ones.

    Args:
        left: Shape (V, k).
        right: Shape (k, D).
    """

    left: Tensor
    right: Tensor


def low_rank(matrix: Tensor, rank: int = RANK, seed: int = 0) -> Direction:
    """Approximate a matrix by a product of thin ones (Halko, Martinsson and Tropp, SIAM Review
    2011, algorithm 4.4 with one step of subspace iteration).

    Args:
        matrix: Float of shape (V, D).
        rank: Largest number of columns of the left factor.
        seed: Seeds the random test matrix.
    """
    count = min(rank, *matrix.shape)
    generator = torch.Generator().manual_seed(seed)
    test = torch.randn(matrix.shape[1], count, generator=generator).to(matrix)
    basis, _ = torch.linalg.qr(matrix.mT @ (matrix @ test))
    basis, _ = torch.linalg.qr(matrix @ basis)
    return Direction(left=basis, right=basis.mT @ matrix)


def head_gradient(head: HeadInputs) -> Tensor:
    """The gradient of the output weight, of the mean over samples of their mean token losses.

    Args:
        head: Inputs of the output head.

    Returns:
        Float32 (float64 for float64), shape (V, D). Samples without any label count as nothing.
    """
    with torch.no_grad(), torch.autocast(head.hidden.device.type, enabled=False):
        head = head.cast()
        wide = torch.float64 if head.hidden.dtype == torch.float64 else torch.float32
        gradient = torch.zeros(head.weight.shape, dtype=wide, device=head.hidden.device)
        chunks, columns = chunks_of(head)
        for some in chunks:
            states = _states(head, some, wide)
            for first, residual in head_tiles(head, some, columns, wide):
                tile = torch.einsum("btv,btd->vd", residual, states)
                gradient[first : first + residual.shape[-1]] += tile
        return gradient / max(1, int((head.labels != IGNORED).any(dim=1).sum()))


def head_alignments(head: HeadInputs, direction: Direction) -> Tensor:
    """The inner product of each sample's gradient of the output weight with a direction.

    Args:
        head: Inputs of the output head.
        direction: Of the output weight's shape.

    Returns:
        Float32 (float64 for float64), shape (B,). NaN for a sample without any label.
    """
    with torch.no_grad(), torch.autocast(head.hidden.device.type, enabled=False):
        head = head.cast()
        wide = torch.float64 if head.hidden.dtype == torch.float64 else torch.float32
        left, right = direction.left.to(head.hidden.device, wide), direction.right
        right = right.to(head.hidden.device, wide)
        chunks, columns = chunks_of(head)
        found = [head.hidden.new_zeros(0, dtype=wide)]
        for some in chunks:
            within = _states(head, some, wide) @ right.mT  # (b, T, k), with 1/n of each sample
            total = torch.zeros(len(within), dtype=wide, device=within.device)
            for first, residual in head_tiles(head, some, columns, wide):
                seen = residual @ left[first : first + residual.shape[-1]]
                total += (seen * within).sum(dim=(1, 2))
            counts = (head.labels[some] != IGNORED).sum(dim=1)
            found.append(torch.where(counts > 0, total, float("nan")))
        return torch.cat(found)


def _states(head: HeadInputs, some: slice, wide: torch.dtype) -> Tensor:
    """Hidden states over the number of their sample's labels, shape (b, T, D)."""
    valid = head.labels[some] != IGNORED
    # The hidden states of padding may be not finite.
    states = head.hidden[some].to(wide).masked_fill(~valid[..., None], 0.0)
    return states / valid.sum(dim=1).clamp(min=1)[:, None, None]
