"""Features by name: what a sample is like, read off its batch without a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attent_stream.base.registry import Registry
from attent_stream.model.batch import tokens_of

_BITS = 9
WIDTH = 1 << _BITS  # counts of a sample
_MIX = 0x9E3779B1  # odd: multiplied by it (modulo 2^32) neighbouring words come to lie far apart
_LARGEST = 2048  # above it float16 has no longer every whole number


def token_counts(batch: Any) -> Tensor:
    """Count the tokens of each sample.

    The first ``WIDTH`` tokens have a count each. The others are hashed onto these with a random
    sign (feature hashing, Weinberger et al., ICML 2009).

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), perhaps an ``attention_mask`` of
            the same shape.

    Returns:
        Float16 of shape (B, WIDTH), whole numbers in [-2048, 2048].

    Raises:
        ScoreError: No token ids.
    """
    tokens, present = tokens_of(batch, "arrange.balance 'tokens'")
    tokens = tokens.long()
    hashed = (tokens * _MIX) & 0xFFFFFFFF
    # The first words keep one each, which others share
    bucket = torch.where(tokens < WIDTH, tokens, hashed >> 32 - _BITS).clamp(0, WIDTH - 1)
    sign = torch.where((tokens < WIDTH) | (hashed >> 31 - _BITS & 1 == 0), 1, -1)
    counts = torch.zeros(len(tokens), WIDTH, dtype=torch.int32, device=tokens.device)
    counts.scatter_add_(1, bucket, (sign * present).int())
    return counts.clamp(-_LARGEST, _LARGEST).half()


FEATURES: Registry[Callable[[Any], Tensor]] = Registry("arrange.balance", {"tokens": token_counts})
