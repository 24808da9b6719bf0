"""Which of a sample's tokens go through the output head."""

from typing import Any

import torch
from torch import Tensor

from attent_stream.model.reference import IGNORED

ROUNDING = 1e-9  # a share times a count may come out a hair above a whole number


def strided_positions(labels: Tensor, share: float) -> Tensor:
    """Of each sample's tokens with a label, ``ceil(share n)`` evenly spaced.

    Args:
        labels: Ints of shape (B, T), -100 is none.
        share: In (0, 1).

    Returns:
        Int64, shape (B, K) with K = ceil(share T): ascending positions, filled up with -1. Nothing
        here waits for the device.
    """
    valid = labels != IGNORED
    length = labels.shape[1]
    total = valid.sum(dim=1, keepdim=True)
    count = (total.double() * share - ROUNDING).ceil().long()
    size = -int(-(share * length - ROUNDING) // 1)
    slot = torch.arange(size, device=labels.device)[None]
    rank = (
        ((2 * slot + 1) * total)
        .div(2 * count.clamp(min=1), rounding_mode="floor")
        .clamp(max=length - 1)
    )
    ordered = (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    return ordered.gather(1, rank).masked_fill_(slot >= count, -1)


def at(values: Tensor, positions: Tensor, fill: Any = None) -> Tensor:
    """``values`` of shape (B, T, ...) at ``positions`` (B, K), of which -1 are ``fill``, or the
    first token's where None.
    """
    index = positions.clamp(min=0)
    index = index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    taken = values.gather(1, index)
    return taken if fill is None else taken.masked_fill(positions < 0, fill)
