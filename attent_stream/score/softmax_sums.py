"""Sums of a softmax over tiles of the vocabulary, and their merge into token scores."""

from typing import NamedTuple

import torch
from torch import Tensor

from attent_stream.model.reference import IGNORED


class SoftmaxSums(NamedTuple):
    """What an online softmax keeps of logits z_j of each token, without the label's logit.

    Args:
        largest: ``m = max z_j``, ``-inf`` where there are none. Float32, shape (N,) or (tiles, N).
        total: ``sum e^(z_j - m)``.
        total_sq: ``sum e^(2 (z_j - m))``.
    """

    largest: Tensor
    total: Tensor
    total_sq: Tensor


def merge(tiles: SoftmaxSums, own: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the negative log-likelihood and squared residual of each token from its sums.

    ``||softmax(z) - onehot(y)||^2 = (S2 + S1^2) / (S1 + e^(z_y - m))^2`` with S1, S2 over the
    classes other than y, so that nothing cancels, as in ``reference.token_scores``.

    Args:
        tiles: Float32, each of shape (tiles, N).
        own: The label's logit, float32, shape (N,).
        labels: Shape (N,); ``-100`` is ignored.

    Returns:
        ``(nll, residual_sq)``, float32, shape (N,), 0 where the label is ignored, NaN where a logit
        is NaN or +inf.
    """
    largest = torch.maximum(tiles.largest.amax(dim=0), own)
    rest = (tiles.largest - largest).exp_()
    others = (tiles.total * rest).sum(dim=0)
    others_sq = (tiles.total_sq * rest.square_()).sum(dim=0)
    own_power = (own - largest).exp_()
    nll = (largest - own) + torch.log1p(others + (own_power - 1.0))
    residual_sq = (others_sq + others.square()) / (others + own_power).square()
    valid = labels != IGNORED
    zero = torch.zeros((), device=own.device)
    return torch.where(valid, nll, zero), torch.where(valid, residual_sq, zero)
