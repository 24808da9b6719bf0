"""How many rows a collate function made of its samples, as far as a batch tells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_WORDS = (str, bytes, int, float, complex, np.generic, type(None))  # what says nothing about rows


def miscounted(batch: Any, samples: int) -> int | None:
    """The number of rows of a batch that has certainly another one than it was made of samples; else None.

    Every tensor's and array's first dimension and the length of every list and tuple may be that number. Only where there are
    such lengths, none is right, and nothing in the batch is of another kind, it is certain.

    Args:
        batch: As collated.
        samples: How many samples it was made of.
    """
    lengths = _lengths(batch)
    return None if lengths is None or not lengths or samples in lengths else lengths[0]


def _lengths(value: Any) -> list[int] | None:
    """Lengths that may be the number of rows, the likeliest first; None where a part could hide any number."""
    if isinstance(value, (Tensor, np.ndarray)):
        return [len(value)] if value.ndim else []
    if isinstance(value, _WORDS):
        return []
    if isinstance(value, PackedSequence) or not isinstance(value, (Mapping, list, tuple)):
        return None
    parts = [_lengths(part) for part in (value.values() if isinstance(value, Mapping) else value)]
    if any(part is None for part in parts):
        return None
    inner = [length for part in parts for length in part]
    return inner if isinstance(value, Mapping) else [*inner, len(value)]
