"""How many rows a collate function made of its samples, and in which order, as far as a batch
tells.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from attent_stream.model.reading import tensors_of

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
    own, others = False, dict(tensors_of(backwards, samples))
    for path, one in tensors_of(batch, samples):
        other = others.get(path)
        if other is None or one.shape != other.shape or torch.equal(one, one.flip(0)):
            continue
        if torch.equal(other, one.flip(0)):
            return False  # here rows follow the samples
        own = own or torch.equal(other, one)
    return own
