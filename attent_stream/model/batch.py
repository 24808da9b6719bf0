"""Batches of any form: how to count and to split them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.model.reference import IGNORED


def batch_length(batch: Any) -> int:
    """Count the samples of a batch.

    Args:
        batch: A tensor with samples along dimension 0, or a mapping, tuple or list of tensors. A
            mapping's ``labels`` decide, else the first tensor.

    Raises:
        ScoreError: The batch holds no such tensor.
    """
    length = _length(batch)
    if length is None:
        raise ScoreError(
            "a batch must hold a tensor with samples along its first dimension, got "
            f"{describe(batch)}"
        )
    return length


def split_batch(batch: Any, size: int, length: int | None = None) -> list[Any]:
    """Split a batch into microbatches of at most ``size`` samples, in order.

    Args:
        batch: See ``batch_length``; it is not changed. Tensors, lists and tuples as long as the
            batch are cut, also inside mappings, tuples and lists. Everything else (numbers,
            strings, tensors of another length) goes into every microbatch.
        size: Samples in a microbatch.
        length: Samples in the batch. None: ``batch_length(batch)``.

    Returns:
        Microbatches of the batch's form, with plain dicts for mappings. A batch of at most ``size``
        samples is returned itself.

    Raises:
        ScoreError: See ``batch_length``.
        ValueError: The size is not a positive integer.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"the size of a microbatch must be an integer of at least 1, got {size!r}")
    length = batch_length(batch) if length is None else length
    if length <= size:
        return [batch]
    return [
        _cut(batch, slice(begin, begin + size), length, True) for begin in range(0, length, size)
    ]


def taken(batch: Any, rows: NDArray[np.int64], length: int) -> Any:
    """Take rows of a batch in an order.

    Args:
        batch: See ``split_batch``.
        rows: Indices of rows, int64 of shape (n,).
        length: Samples in the batch.
    """
    return _cut(batch, rows, length, True)


def tokens_of(batch: Any, asked_by: str) -> tuple[Tensor, Tensor]:
    """A text batch's token ids, and which of them are no padding.

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), perhaps an ``attention_mask`` of
            the same shape.
        asked_by: Who needs them, for the message.

    Returns:
        The ids, and bools of the same shape.

    Raises:
        ScoreError: There are no token ids.
    """
    tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
        raise ScoreError(
            f"{asked_by} needs input_ids of shape (samples, tokens) in a batch, got "
            f"{describe(batch)}"
        )
    mask = batch.get("attention_mask")
    masked = isinstance(mask, Tensor) and mask.shape == tokens.shape
    return tokens, mask != 0 if masked else tokens != IGNORED


def predicted(batch: Any) -> Tensor | None:
    """How many tokens of each row a causal language model predicts, ints of shape (B,).

    Args:
        batch: A mapping with ``labels``, ints of shape (B, T). Without them: None.
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        return None
    return predicted_by(labels)


def predicted_by(labels: Tensor) -> Tensor:
    """How many tokens of each row are predicted, of labels of shape (B, T): not the first one."""
    return (labels[:, 1:] != IGNORED).sum(dim=1)


def describe(batch: Any) -> str:
    """Describe a batch, or a model's outputs, in a few words for an error message."""
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
    items.sort(key=lambda item: not isinstance(item, Tensor))  # nested items come last
    return next((length for item in items if (length := _length(item)) is not None), None)


def _cut(value: Any, rows: slice | NDArray[np.int64], length: int, outermost: bool) -> Any:
    if isinstance(value, Tensor):
        return _rows(value, rows) if value.ndim and len(value) == length else value
    if isinstance(value, Mapping):
        return {key: _cut(item, rows, length, False) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        # The outermost sequence holds fields, even where it has as many as there are samples. A
        # sequence inside that is as long as the batch has one item per sample, unless it is a tuple
        # of whole tensors.
        fields = isinstance(value, tuple) and all(
            isinstance(v, Tensor) and v.ndim and len(v) == length for v in value
        )
        if not outermost and not fields and len(value) == length:
            return _rows(value, rows)
        items = [_cut(item, rows, length, False) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _rows(value: Any, rows: slice | NDArray[np.int64]) -> Any:
    """Rows of a tensor, or items of a list or tuple."""
    if isinstance(rows, slice):
        return value[rows]
    if isinstance(value, Tensor):
        return value[torch.from_numpy(rows)]
    return type(value)([value[row] for row in rows.tolist()])
