"""Positions of the tokens that go through the output head."""

from typing import Any

import torch
from torch import Tensor

from attent_stream.model.reference import IGNORED

ROUNDING = 1e-9  # a share times a count may exceed a whole number by a rounding error


def share_of(count: int, share: float) -> int:
    """``ceil(share count)``, but for rounding errors."""
    return -int(-(share * count - ROUNDING) // 1)


def strided_positions(labels: Tensor, share: float) -> Tensor:
    """Choose ``ceil(share n)`` evenly spaced tokens of each sample's n labeled ones.

    Args:
        labels: Ints of shape (B, T), ``-100`` where ignored.
        share: In (0, 1).

    Returns:
        Ascending positions, int64 of shape (B, K) with K = ceil(share T), padded with -1. Computing
        them does not wait for the device.
    """
    valid = labels != IGNORED
    length = labels.shape[1]
    total = valid.sum(dim=1, keepdim=True)
    count = (total.double() * share - ROUNDING).ceil().long()
    slot = torch.arange(share_of(length, share), device=labels.device)[None]
    rank = ((2 * slot + 1) * total).div(2 * count.clamp(min=1), rounding_mode="floor")
    ordered = (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    positions = ordered.gather(1, rank.clamp(max=length - 1))
    return positions.masked_fill_(slot >= count, -1)


def take_tokens(values: Tensor, positions: Tensor, fill: Any = None) -> Tensor:
    """Gather ``values`` of shape (B, T, ...) at ``positions`` of shape (B, K).

    At a position of -1 the result is ``fill``, or the first token's value where ``fill`` is None.
    """
    index = positions.clamp(min=0)
    index = index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    taken = values.gather(1, index)
    return taken if fill is None else taken.masked_fill(positions < 0, fill)
