"""How many rows a collate function made of its samples, and in which order, as far as a batch tells."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_WORDS = (str, bytes, int, float, complex, np.generic, type(None))  # what says nothing about rows


def miscounted(batch: Any, samples: int) -> int | None:
    """The number of rows of a batch that has certainly another one than it was made of samples;
    else None.

    Every tensor's and array's first dimension and the length of every list and tuple may be that
    number. Only where there are such lengths, none is right, and nothing in the batch is of another
    kind, it is certain.

    Args:
        batch: As collated.
        samples: How many samples it was made of.
    """
    first = None
    for length in _lengths(batch, True):
        if length is None or length == samples:
            return None
        first = length if first is None else first
    return first


def _lengths(value: Any, outermost: bool) -> Iterator[int | None]:
    """Lengths that may be the number of rows, the likeliest first; None for a part that could hide
    any number.
    """
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
        if outermost:  # more likely fields than samples
            yield len(value)
    elif not isinstance(value, _WORDS):
        yield None


def reordered(batch: Any, backwards: Any, samples: int) -> bool:
    """Whether rows certainly lie in an order of the collate function's own (sorted by length, say).

    Args:
        batch: As collated.
        backwards: As collated from the same samples in reverse.
        samples: How many.
    """
    own = False
    for one, other in zip(_tensors(batch, samples), _tensors(backwards, samples), strict=False):
        if one.shape != other.shape or torch.equal(one, one.flip(0)):
            continue
        if torch.equal(other, one.flip(0)):
            return False  # here rows follow the samples
        own = own or torch.equal(other, one)
    return own


def _tensors(value: Any, samples: int) -> Iterator[Tensor]:
    """The tensors with a row for each sample."""
    if isinstance(value, Tensor):
        if value.ndim and len(value) == samples:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part, samples)
    elif isinstance(value, (list, tuple)) and not isinstance(value, PackedSequence):
        for part in value:
            yield from _tensors(part, samples)
