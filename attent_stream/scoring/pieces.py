"""Batches of pieces of samples: put together where samples are read, taken apart where they are counted and trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attent_stream.scoring.batch import ScoreError, describe


@runtime_checkable
class Packed(Protocol):
    """A collate function that says whether its samples are whole text without padding, all of one length."""

    @property
    def packed(self) -> bool:
        """Whether they are."""


def apart(batch: Any, pieces: int) -> dict[str, Tensor]:
    """Cut each sample of a batch into pieces of equal length, side by side; what is left over at its end goes.

    Args:
        batch: A mapping of tensors of shape (B, T, ...) with ``input_ids``.
        pieces: Of each sample.

    Returns:
        Tensors of shape (B * pieces, T // pieces, ...).

    Raises:
        ScoreError: Another batch, samples shorter than that, or padding.
    """
    length = _length(batch, pieces)
    return {
        name: value[:, : pieces * (length // pieces)].reshape(len(value) * pieces, length // pieces, *value.shape[2:])
        for name, value in batch.items()
    }


def together(batch: Any, which: Sequence[int], pieces: int) -> dict[str, Tensor]:
    """Of each sample of a batch one piece, several pieces to a row, so that the batch has as many rows as one of whole samples.

    Args:
        batch: As of ``apart``, with B * pieces samples.
        which: Piece of each sample, in [0, pieces).
        pieces: Into which each sample is cut.

    Returns:
        Tensors of shape (B, pieces * (T // pieces), ...), which ``apart`` makes B * pieces pieces of again.

    Raises:
        ScoreError: As ``apart``.
    """
    cut = apart(batch, pieces)
    rows = torch.arange(len(which)) * pieces + torch.tensor(which)
    out = {}
    for name, value in cut.items():
        chosen = value[rows]
        out[name] = chosen.reshape(len(which) // pieces, pieces * value.shape[1], *value.shape[2:])
    return out


def _length(batch: Any, pieces: int) -> int:
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise ScoreError(f"seq_len needs input_ids of shape (samples, tokens) in a batch, got {describe(batch)}")
    for name, value in batch.items():
        if not isinstance(value, Tensor) or value.shape[:2] != ids.shape:
            raise ScoreError(f"seq_len cuts all of a batch: expected {name} of shape {tuple(ids.shape)}, got {_shape(value)}")
    if "attention_mask" in batch and not batch["attention_mask"].all():
        raise ScoreError("seq_len needs samples without padding (packed ones), got an attention_mask with zeros")
    if ids.shape[1] < 2 * pieces:
        raise ScoreError(f"seq_len: expected samples of at least {2 * pieces} tokens to cut into {pieces}, got {ids.shape[1]}")
    return ids.shape[1]


def _shape(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
