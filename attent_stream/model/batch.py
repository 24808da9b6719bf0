"""Batches of any form: how many samples one holds, and its parts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attent_stream.base.errors import ScoreError


def batch_length(batch: Any) -> int:
    """How many samples a batch holds.

    Args:
        batch: A tensor (samples along dim 0), a mapping (its ``labels``, else its first tensor,
            decides), or a tuple or list whose first such item decides.

    Raises:
        ScoreError: Nothing in the batch says so.
    """
    length = _length(batch)
    if length is None:
        raise ScoreError(
            "a batch must hold a tensor with samples along its first dimension, got "
            f"{describe(batch)}"
        )
    return length


def split_batch(batch: Any, size: int, length: int | None = None) -> list[Any]:
    """Parts of a batch of at most ``size`` samples, in order; the batch itself is left as it is.

    Args:
        batch: As for ``batch_length``. Tensors, lists and tuples as long as the batch are cut, also
            inside of mappings, tuples and lists; everything else (numbers, strings, tensors of
            another length) goes into every part.
        size: Samples in a part.
        length: Samples in the batch; None: ``batch_length``'s.

    Returns:
        Parts of the batch's form; a mapping's are plain dicts. A batch that is no longer than
        ``size`` is its own part.

    Raises:
        ScoreError: As ``batch_length``.
        ValueError: A size that is not positive.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"the size of a microbatch must be an integer of at least 1, got {size!r}")
    length = batch_length(batch) if length is None else length
    if length <= size:
        return [batch]
    return [
        _part(batch, slice(begin, begin + size), length, True) for begin in range(0, length, size)
    ]


def describe(batch: Any) -> str:
    """A batch, or a model's outputs, in a few words for an error message."""
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"keys {sorted(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        items = ", ".join(type(item).__name__ for item in batch[:4])
        return f"a {type(batch).__name__} of {len(batch)} ({items})"
    return f"a {type(batch).__name__}"


def _length(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    if isinstance(batch, Mapping):
        items = [batch["labels"], *batch.values()] if "labels" in batch else list(batch.values())
    elif isinstance(batch, (tuple, list)):
        items = list(batch)
    else:
        return None
    items.sort(
        key=lambda item: not isinstance(item, Tensor)
    )  # what is nested decides only where nothing else does
    return next((length for item in items if (length := _length(item)) is not None), None)


def _part(value: Any, part: slice, length: int, outermost: bool) -> Any:
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == length else value
    if isinstance(value, Mapping):
        return {key: _part(item, part, length, False) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        # The outermost holds fields, of which there may be as many as samples. One inside that is
        # as long as the batch holds an item for each sample, unless it is a tuple of fields that
        # are whole tensors themselves.
        fields = isinstance(value, tuple) and all(
            isinstance(v, Tensor) and v.ndim and len(v) == length for v in value
        )
        if not outermost and not fields and len(value) == length:
            return value[part]
        items = [_part(item, part, length, False) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
