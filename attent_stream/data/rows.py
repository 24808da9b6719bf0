"""Tests whether the rows of a collated batch are its samples, in their order."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from attent_stream.model.reading import tensors_of

_SCALARS = (str, bytes, int, float, complex, np.generic, type(None))


def miscounted(batch: Any, samples: int) -> int | None:
    """Return the number of rows of a batch if it is certainly not the number of samples, else None.

    Any first dimension of a tensor or array and any length of a list or tuple may be the number of
    rows. It is certain if there are such lengths, all are wrong, and the batch has no object of
    another type.

    Args:
        batch: The collated batch.
        samples: The number of samples it was collated from.
    """
    first = None
    for length in _lengths(batch, True):
        if length is None or length == samples:
            return None
        first = length if first is None else first
    return first


def _lengths(value: Any, outermost: bool) -> Iterator[int | None]:
    """Yield possible numbers of rows, the likeliest first, and None for unknown objects."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            yield len(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _lengths(part, False)
    elif isinstance(value, (list, tuple)) and not isinstance(value, PackedSequence):
        if not outermost:
            yield len(value)
        for part in value:
            yield from _lengths(part, False)
        if outermost:  # its length more likely counts fields than samples
            yield len(value)
    elif not isinstance(value, _SCALARS):
        yield None


def reordered(batch: Any, backwards: Any, samples: int) -> bool:
    """Whether the collate function certainly reorders rows, for example by length.

    Args:
        batch: The collated batch.
        backwards: The batch collated from the same samples in reverse.
        samples: The number of samples.
    """
    own, others = False, dict(tensors_of(backwards, samples))
    for path, one in tensors_of(batch, samples):
        other = others.get(path)
        if other is None or one.shape != other.shape or torch.equal(one, one.flip(0)):
            continue
        if torch.equal(other, one.flip(0)):
            return False  # these rows follow the samples
        own = own or torch.equal(other, one)
    return own
