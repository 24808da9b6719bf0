"""Micro-batches of samples of similar length: the rows of each batch, sorted by length.

A batch of padded text is as wide as its longest sample, and so are its micro-batches, if they are
cut from it as they come. Sorted, each is cut to its own longest sample. A batch keeps its samples,
so the gradient of a step stays what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.arrangement import Arrangement
from attent_stream.base.errors import ScoreError
from attent_stream.base.span import Clock
from attent_stream.model.batch import taken, tokens_of
from attent_stream.model.reference import IGNORED
from attent_stream.window.choice import Window

SETTING = "arrange.sort"
LENGTH = "length"
_ALIGNED = 64  # positions; tensor cores want widths that are multiples of some power of 2


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a batch, from the longest to the shortest.

    Args:
        order: Index of each row in the batch that was collated, int64 of shape (B,).
        lengths: Tokens of each row that are no padding, int64 of shape (B,), descending.
        labels: Tokens of each row that are predicted, int64 of shape (B,).
        width: Positions of a row.
    """

    order: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    width: int
    multiple: int = field(init=False)

    def __post_init__(self) -> None:
        multiple = min(_ALIGNED, self.width & -self.width)
        object.__setattr__(self, "multiple", multiple)

    def width_of(self, begin: int, end: int) -> int:
        """Positions that rows from ``begin`` to before ``end`` need. If the whole width is a
        multiple of a power of 2, this is too.
        """
        longest = max(1, int(self.lengths[begin:end].max(initial=1)))
        return min(self.width, -(-longest // self.multiple) * self.multiple)


@dataclass(frozen=True, kw_only=True)
class Sort(Arrangement):
    """Sorts the rows of every batch by their length.

    Args:
        by: ``length``, the only one.

    Raises:
        ValueError: Another name.
    """

    by: str = LENGTH
    foreseeable = True
    in_steps = True

    def __post_init__(self) -> None:
        if self.by != LENGTH:
            raise ValueError(f"{SETTING} must be {LENGTH}, got {self.by!r}")

    @classmethod
    def parse(cls, value: Any) -> "Sort":
        """From ``length``."""
        return cls(by=value)

    def check(self, batch: Any) -> None:
        """See ``Arrangement``. What is padding must be at the end of samples."""
        rows_by_length(batch)

    def decide(self, window: Window, end: Clock, units: int) -> int:
        """See ``Arrangement``. What is cut into pieces is not padded."""
        return int(units == 1)

    def rows(self, batch: Any, note: int) -> Rows | None:
        """See ``Arrangement``. A batch that cannot be cut to its samples is left as it is, and one
        with a sample that has no label: a micro-batch of these has a loss of NaN.
        """
        try:
            found = rows_by_length(batch)
        except ScoreError:  # another form than that of the samples that were checked
            return None
        return found if found.labels.all() else None


def rows_by_length(batch: Any) -> Rows:
    """Sort the rows of a collated batch by length; rows of one length stay in order.

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), and an ``attention_mask`` of the
            same shape; without it, nothing is padding.

    Raises:
        ScoreError: No token ids; padding that is not at the end of samples, or has labels; a
            tensor that cannot be cut to fewer positions.
    """
    tokens, present = tokens_of(batch, f"{SETTING} {LENGTH!r}")
    count, width = tokens.shape
    if (present[:, 1:] & ~present[:, :-1]).any():
        raise ScoreError(f"{SETTING} needs padding at the end of samples, got some before tokens")
    for name, value in batch.items():
        if isinstance(value, Tensor) and not _can_be_cut(value, count, width):
            raise ScoreError(
                f"{SETTING} cuts batches to fewer positions: expected {name} of shape "
                f"({count}, {width}), got {tuple(value.shape)}"
            )
    labels = batch.get("labels")
    if not (isinstance(labels, Tensor) and labels.shape == tokens.shape):
        labels = torch.where(present, tokens, IGNORED)
    elif (labels[~present] != IGNORED).any():
        raise ScoreError(f"{SETTING} needs padding without labels, got some with labels")
    lengths = present.sum(dim=1).numpy()
    order = np.argsort(-lengths, kind="stable")
    predicted = (labels[:, 1:] != IGNORED).sum(dim=1).numpy()
    return Rows(order=order, lengths=lengths[order], labels=predicted[order], width=width)


def sorted_by(batch: Mapping[str, Any], rows: Rows) -> Mapping[str, Any]:
    """A batch with its rows in another order."""
    if (rows.order[1:] > rows.order[:-1]).all():
        return batch
    return taken(batch, rows.order, len(rows.order))


def cut_to(batch: Mapping[str, Any], width: int, positions: int) -> dict[str, Any]:
    """Leave out the last positions of a micro-batch.

    Args:
        batch: Tensors of shape (b, T, ...), and others that are kept.
        width: T.
        positions: Positions that are kept.
    """
    return {
        name: value[:, :positions]
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == width
        else value
        for name, value in batch.items()
    }


def _can_be_cut(value: Tensor, count: int, width: int) -> bool:
    """Whether positions are only in dimension 1, behind the rows."""
    if value.ndim > 1 and value.shape[:2] == (count, width):
        return width not in value.shape[2:]
    return width not in value.shape[1:] and (value.ndim == 0 or len(value) == count)
