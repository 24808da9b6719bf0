"""Features by name, by which batches are balanced (``teaching.balance``): what a sample is like,
read off it without a model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.cutting import apart, cuttable
from attent_stream.arrange.pieces import MOST
from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.reference import IGNORED

_BITS = 9
WIDTH = 1 << _BITS  # counts of a sample
_MIX = 0x9E3779B1  # odd: multiplied by it (modulo 2^32) neighbouring words come to lie far apart
_LARGEST = 2048  # above it float16 has no longer every whole number


def token_counts(batch: Any) -> Tensor:
    """How often each token occurs in a sample, words hashed to ``WIDTH`` counts, with a sign each,
    where there are more (feature hashing: Weinberger et al., ICML 2009; count sketch).

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), perhaps an ``attention_mask`` of
            the same shape.

    Returns:
        Float16 of shape (B, WIDTH), whole numbers in [-2048, 2048].

    Raises:
        ScoreError: No token ids.
    """
    tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
        raise ScoreError(
            "balance 'tokens' needs input_ids of shape (samples, tokens) in a batch, got "
            f"{describe(batch)}"
        )
    tokens = tokens.long()
    hashed = (tokens * _MIX) & 0xFFFFFFFF
    # The first words keep one each, which others share
    bucket = torch.where(tokens < WIDTH, tokens, hashed >> 32 - _BITS).clamp(0, WIDTH - 1)
    sign = torch.where((tokens < WIDTH) | (hashed >> 31 - _BITS & 1 == 0), 1, -1)
    mask = batch.get("attention_mask")
    present = tokens != IGNORED if mask is None or mask.shape != tokens.shape else mask != 0
    counts = torch.zeros(len(tokens), WIDTH, dtype=torch.int32, device=tokens.device)
    counts.scatter_add_(1, bucket, (sign * present).int())
    return counts.clamp(-_LARGEST, _LARGEST).half()


FEATURES: dict[str, Callable[[Any], Tensor]] = {"tokens": token_counts}


def wanted(name: str, whole: bool, pieces: int) -> int:
    """As a number that a loader's worker is told: what to make of a candidate batch.

    Args:
        name: Of its features, in ``FEATURES``.
        whole: Whether the batch is wanted, too.
        pieces: Into how many each sample is cut.
    """
    return 1 + whole + 2 * (pieces - 1 + MOST * list(FEATURES).index(name))


def made(wants: int, batch: Any) -> tuple[Any, NDArray[np.float16] | None]:
    """What is wanted of a batch by its number: itself or None, and its features or None, float16 of
    shape (B, pieces * d).

    Raises:
        ScoreError: As the features' function, or ``cuttable``.
    """
    if not wants:
        return batch, None
    rest, whole = divmod(wants - 1, 2)
    which, pieces = divmod(rest, MOST)
    seen, pieces = batch, pieces + 1
    if pieces > 1:
        cuttable(batch, pieces)
        seen = apart(batch, pieces, len(batch["input_ids"]))
    counted = list(FEATURES.values())[which](seen).numpy()
    return (batch if whole else None), counted.reshape(len(counted) // pieces, -1)
