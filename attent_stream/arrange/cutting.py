"""Batches of pieces of samples: put together where samples are read, taken apart where they are
counted and trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.reference import IGNORED

_WAY_OUT = "; seq_len: 1 trains on whole samples"


@runtime_checkable
class Packed(Protocol):
    """A collate function that says whether its samples are whole text without padding, all of one
    length.
    """

    @property
    def packed(self) -> bool:
        """Whether they are."""


def cuttable(batch: Any, pieces: int) -> None:
    """See to it that a batch as collated can be cut into pieces.

    Raises:
        ScoreError: No token ids, other tensors than those of a text's positions, samples too short,
            padding, a piece without labels.
    """
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise ScoreError(
            "seq_len needs input_ids of shape (samples, tokens) in a batch, got "
            f"{describe(batch)}{_WAY_OUT}"
        )
    for name, value in batch.items():
        if not isinstance(value, Tensor) or value.shape[:2] != ids.shape:
            got = (
                f"shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else f"a {type(value).__name__}"
            )
            raise ScoreError(
                f"seq_len cuts all of a batch: expected {name} of shape {tuple(ids.shape)}, got "
                f"{got}{_WAY_OUT}"
            )
    if "position_ids" in batch:
        raise ScoreError(
            "seq_len counts positions from each piece's start, got position_ids in a "
            f"batch{_WAY_OUT}"
        )
    if "attention_mask" in batch and not batch["attention_mask"].all():
        raise ScoreError(
            "seq_len needs samples without padding (packed ones), got an attention_mask with "
            f"zeros{_WAY_OUT}"
        )
    if ids.shape[1] < 2 * pieces:
        raise ScoreError(
            f"seq_len: expected samples of at least {2 * pieces} tokens to cut into {pieces}, got "
            f"{ids.shape[1]}{_WAY_OUT}"
        )
    if "labels" in batch:
        # A causal language model predicts no first token
        labels = _cut(batch["labels"], pieces)[:, 1:]
        if not (labels != IGNORED).flatten(1).any(dim=1).all():
            raise ScoreError(
                f"seq_len needs a label in every piece, got one of {labels.shape[1] + 1} positions "
                f"without{_WAY_OUT}"
            )


def apart(batch: Mapping[str, Tensor], pieces: int, rows: int) -> dict[str, Tensor]:
    """Cut each row of a batch into pieces of equal length, side by side; what is left over at its
    end goes.

    Args:
        batch: Tensors of shape (rows, T, ...).
        pieces: Of each row.
        rows: How many there should be.

    Returns:
        Tensors of shape (rows * pieces, T // pieces, ...).

    Raises:
        ScoreError: Another batch.
    """
    same = isinstance(batch, Mapping) and all(
        isinstance(value, Tensor) and len(value) == rows for value in batch.values()
    )
    if not same or len({value.shape[1] for value in batch.values()}) != 1:
        raise ScoreError(
            f"seq_len: expected a batch of {rows} rows as the collate function made them, got "
            f"{describe(batch)}: leave away what "
            f"changes batches before BATCH_START{_WAY_OUT}"
        )
    return {name: _cut(value, pieces) for name, value in batch.items()}


def together(batch: Any, which: Sequence[int], pieces: int) -> dict[str, Tensor]:
    """Of each sample of a batch one piece, several pieces to a row, so that the batch has as many
    rows as one of whole samples.

    Args:
        batch: As collated, of B * pieces samples.
        which: Piece of each sample, in [0, pieces).
        pieces: Into which each sample is cut.

    Returns:
        Tensors of shape (B, pieces * (T // pieces), ...), which ``apart`` makes B * pieces pieces
        of again.

    Raises:
        ScoreError: As ``cuttable``, or another number of samples.
    """
    cuttable(batch, pieces)
    if len(batch["input_ids"]) != len(which):
        raise ScoreError(
            f"seq_len: expected a batch of {len(which)} rows, one a sample, got "
            f"{len(batch['input_ids'])}{_WAY_OUT}"
        )
    rows = torch.arange(len(which)) * pieces + torch.tensor(which)
    chosen = {name: _cut(value, pieces)[rows] for name, value in batch.items()}
    return {
        name: value.reshape(len(which) // pieces, pieces * value.shape[1], *value.shape[2:])
        for name, value in chosen.items()
    }


def _cut(value: Tensor, pieces: int) -> Tensor:
    length = value.shape[1] // pieces
    return value[:, : pieces * length].reshape(len(value) * pieces, length, *value.shape[2:])
