"""Micro-batches of samples of similar length: the rows of each batch, sorted by length.

A batch of padded text is as wide as its longest sample, and so are its micro-batches, if they are
cut from it as they come. Sorted, each is cut to its own longest sample. A batch keeps its samples,
so the gradient of a step stays what it was. ``effects/trimmed.py`` does it.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.arrangement import Arrangement
from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import predicted_by, taken, tokens_of
from attent_stream.model.reference import IGNORED

SETTING = "arrange.sort"
LENGTH = "length"
# What has a value for each position in dimension 1. Of other names it is not known.
_POSITIONS = frozenset(
    ("input_ids", "labels", "attention_mask", "token_type_ids", "position_ids", "loss_mask")
)
_ALIGNED = 64  # positions; tensor cores want widths that are multiples of some power of 2


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a batch in an order.

    Args:
        order: Index of each row in the batch that was collated, int64 of shape (B,).
        lengths: Tokens of each row that are no padding, int64 of shape (B,).
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

    @property
    def in_order(self) -> bool:
        """Whether they are in the order of the batch that was collated."""
        return bool((self.order[1:] > self.order[:-1]).all())

    @property
    def unsorted(self) -> "Rows":
        """The rows in the order of the batch that was collated."""
        back = np.argsort(self.order)
        return Rows(
            order=self.order[back],
            lengths=self.lengths[back],
            labels=self.labels[back],
            width=self.width,
        )

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


def rows_by_length(batch: Any) -> Rows:
    """Sort the rows of a collated batch from the longest to the shortest; rows of one length stay
    in order.

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), and an ``attention_mask`` of the
            same shape; without it, nothing is padding. On the CPU.

    Raises:
        ScoreError: No token ids, or not on the CPU; padding that is not at the end of samples, or
            has labels; a tensor that cannot be cut to fewer positions.
    """
    tokens, present = tokens_of(batch, f"{SETTING} {LENGTH!r}")
    count, width = tokens.shape
    if tokens.device.type != "cpu":
        raise ScoreError(f"{SETTING} needs batches on the CPU, got one on {tokens.device}")
    if (present[:, 1:] & ~present[:, :-1]).any():
        raise ScoreError(f"{SETTING} needs padding at the end of samples, got some before tokens")
    wrong = uncuttable(batch, count, width)
    if wrong:
        raise ScoreError(
            f"{SETTING} sorts batches and cuts them to fewer positions, and does not know how to "
            f"do so with {wrong} beside input_ids of shape ({count}, {width})"
        )
    labels = batch.get("labels")
    if not (isinstance(labels, Tensor) and labels.shape == tokens.shape):
        labels = torch.where(present, tokens, IGNORED)
    elif (labels[~present] != IGNORED).any():
        raise ScoreError(f"{SETTING} needs padding without labels, got some with labels")
    lengths = present.sum(dim=1).numpy()
    order = np.argsort(-lengths, kind="stable")
    counts = predicted_by(labels).numpy()
    return Rows(order=order, lengths=lengths[order], labels=counts[order], width=width)


def sorted_by(batch: Mapping[str, Any], rows: Rows) -> Mapping[str, Any]:
    """A batch with its rows in another order, of the same class, and pinned if it was."""
    if rows.in_order:
        return batch
    made = taken(batch, rows.order, len(rows.order))
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.is_pinned() and not made[name].is_pinned():
            made[name] = made[name].pin_memory()
    return _like(batch, made)


def cut_to(batch: Mapping[str, Any], positions: int) -> Mapping[str, Any]:
    """Leave out the last positions of a micro-batch.

    Args:
        batch: What has positions is of shape (b, T). Everything else is kept.
        positions: Positions that are kept.
    """
    made = {
        name: value[:, :positions].contiguous() if name in _POSITIONS and _flat(value) else value
        for name, value in batch.items()
    }
    return _like(batch, made)


def uncuttable(batch: Mapping[str, Any], count: int, width: int) -> str:
    """Name of what may have positions where they cannot be cut, or may not have one row for each
    sample; empty if there is nothing like that.

    Args:
        batch: The batch.
        count: Its rows.
        width: Its positions.
    """
    for name, value in batch.items():
        if name in _POSITIONS and isinstance(value, Tensor):
            if value.shape != (count, width):
                return name
            continue
        listed = isinstance(value, (list, tuple)) and len(value) != count
        if listed or any(len(one) != count or width in one.shape[1:] for one in _tensors(value)):
            return name
    return ""


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value that are no single numbers."""
    if isinstance(value, Tensor) and value.ndim:
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(one)


def _flat(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def _like(batch: Mapping[str, Any], made: dict[str, Any]) -> Mapping[str, Any]:
    """A batch of the same class with other values, such as a ``BatchEncoding``."""
    if type(batch) is dict:
        return made
    other: Any = copy(batch)
    for name, value in made.items():
        other[name] = value
    return other
