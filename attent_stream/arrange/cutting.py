"""Batches of pieces: put together where samples are read, taken apart where they are trained on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.reference import IGNORED

MOST = 16  # pieces of a sample
_WAY_OUT = "; without arrange.pieces whole samples are trained on"


@runtime_checkable
class Packed(Protocol):
    """A collate function that tells whether its samples are text of one length without padding."""

    @property
    def packed(self) -> bool:
        """True if they are."""


@runtime_checkable
class CollatesToCut(Protocol):
    """A collate function that makes other batches of samples that will be cut into pieces."""

    def to_cut(self, samples: list) -> Mapping[str, Tensor]:
        """Collate samples without what cannot be cut, such as counts of each row's tokens.

        Raises:
            ScoreError: The samples cannot be cut.
        """


def collate_to_cut(collate: Callable[[list], Any]) -> Callable[[list], Any]:
    """The function that collates samples that will be cut."""
    return collate.to_cut if isinstance(collate, CollatesToCut) else collate


def cuttable(batch: Any, pieces: int) -> None:
    """Check that a collated batch can be cut into pieces.

    Raises:
        ScoreError: There are no token ids; a value is not a tensor with one entry a position;
            samples are too short or padded; or a piece would have no label.
    """
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise ScoreError(
            "arrange.pieces needs input_ids of shape (samples, tokens) in a batch, got "
            f"{describe(batch)}{_WAY_OUT}"
        )
    for name, value in batch.items():
        if not isinstance(value, Tensor) or value.shape[:2] != ids.shape:
            is_tensor = isinstance(value, Tensor)
            got = f"shape {tuple(value.shape)}" if is_tensor else f"a {type(value).__name__}"
            raise ScoreError(
                f"arrange.pieces cuts every value of a batch: expected {name} of shape "
                f"{tuple(ids.shape)}, got {got}{_WAY_OUT}"
            )
    if "position_ids" in batch:
        raise ScoreError(
            "arrange.pieces counts positions from the start of each piece, got position_ids in a "
            f"batch{_WAY_OUT}"
        )
    if "attention_mask" in batch and not batch["attention_mask"].all():
        raise ScoreError(
            "arrange.pieces needs packed samples without padding, got an attention_mask with "
            f"zeros{_WAY_OUT}"
        )
    if ids.shape[1] < 2 * pieces:
        raise ScoreError(
            f"arrange.pieces expected samples of at least {2 * pieces} tokens to cut into "
            f"{pieces}, got {ids.shape[1]}{_WAY_OUT}"
        )
    if "labels" in batch:
        labels = _cut(batch["labels"], pieces)[:, 1:]  # a causal LM predicts no first token
        if not (labels != IGNORED).flatten(1).any(dim=1).all():
            raise ScoreError(
                f"arrange.pieces needs a label in every piece, got a piece of "
                f"{labels.shape[1] + 1} positions without any{_WAY_OUT}"
            )


def by_position(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values of a batch that have one entry a position, such as its token ids."""
    shape = batch["input_ids"].shape
    return {
        name: value
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.shape[:2] == shape
    }


def apart(batch: Mapping[str, Tensor], pieces: int, rows: int) -> dict[str, Tensor]:
    """Cut each row of a batch into equal pieces. A remainder at a row's end is left out.

    Args:
        batch: Tensors of shape (rows, T, ...).
        pieces: Pieces of a row.
        rows: Expected number of rows.

    Returns:
        Tensors of shape (rows * pieces, T // pieces, ...).

    Raises:
        ScoreError: The batch has another form.
    """
    same = isinstance(batch, Mapping) and all(
        isinstance(value, Tensor) and len(value) == rows for value in batch.values()
    )
    if not same or len({value.shape[1] for value in batch.values()}) != 1:
        raise ScoreError(
            f"arrange.pieces expected a batch of {rows} rows as the collate function made them, "
            f"got {describe(batch)}: remove what changes batches before BATCH_START{_WAY_OUT}"
        )
    return {name: _cut(value, pieces) for name, value in batch.items()}


def together(batch: Any, which: Sequence[int], pieces: int) -> dict[str, Tensor]:
    """Take one piece of each sample, and put several pieces into a row.

    The batch then has as many rows as one of whole samples, so batch sizes are counted as ever.

    Args:
        batch: A collated batch of B * pieces samples.
        which: Piece to take of each sample, in [0, pieces).
        pieces: Pieces of a sample.

    Returns:
        Tensors of shape (B, pieces * (T // pieces), ...). ``apart`` makes B * pieces pieces of
        them.

    Raises:
        ScoreError: See ``cuttable``; or the number of samples differs.
    """
    cuttable(batch, pieces)
    if len(batch["input_ids"]) != len(which):
        raise ScoreError(
            f"arrange.pieces expected a batch of {len(which)} rows, one a sample, got "
            f"{len(batch['input_ids'])}{_WAY_OUT}"
        )
    rows = torch.arange(len(which)) * pieces + torch.tensor(which)
    chosen = {name: _cut(value, pieces)[rows] for name, value in batch.items()}
    count = len(which) // pieces
    return {
        name: value.reshape(count, pieces * value.shape[1], *value.shape[2:])
        for name, value in chosen.items()
    }


def _cut(value: Tensor, pieces: int) -> Tensor:
    length = value.shape[1] // pieces
    return value[:, : pieces * length].reshape(len(value) * pieces, length, *value.shape[2:])
