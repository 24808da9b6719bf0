"""Batches of samples of similar length: a window's lessons, grouped so that little is padded.

A batch of padded text is as long as its longest sample. Of samples in random order, a third of a
batch of eight conversations is padding. Batching by approximate length is from machine translation
(Vaswani et al., "Attention is all you need", NeurIPS 2017, section 5.1); Hugging Face's Trainer
calls it ``group_by_length``. Here it is done window by window, so that no length need be known
before. Nothing is dropped or weighted.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.arrangement import Arrangement, Selected
from attent_stream.base.errors import ScoreError
from attent_stream.base.gather import Steps, summed
from attent_stream.base.span import Clock
from attent_stream.model.batch import tokens_of
from attent_stream.window.choice import Window

SETTING = "arrange.group"
LENGTH = "length"
_ROUNDED = 128  # a batch's width may be a multiple of so many positions
_PART = 1024  # float16 has every whole number up to twice this


@dataclass(frozen=True, kw_only=True)
class Group(Arrangement):
    """Groups the lessons of every window by their length.

    Args:
        by: ``length``, the only one.

    Raises:
        ValueError: Another name.
    """

    by: str = LENGTH
    reads: ClassVar[bool] = True
    reads_first: ClassVar[bool] = True  # it is quickly read, and may be half of a small epoch
    foreseeable: ClassVar[bool] = True
    in_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.by != LENGTH:
            raise ValueError(f"{SETTING} must be {LENGTH}, got {self.by!r}")

    @classmethod
    def parse(cls, value: Any) -> "Group":
        """From ``length``."""
        return cls(by=value)

    def check(self, batch: Any) -> None:
        """See ``Arrangement``. Batches must be as long as their longest sample."""
        lengths, width = lengths_of(batch)
        if not (lengths < width).any():
            raise ScoreError(f"{SETTING} needs padded samples, got {len(lengths)} of one length")
        if width - lengths.max() >= _ROUNDED:
            raise ScoreError(
                f"{SETTING} needs batches as long as their longest sample, got {width} positions "
                f"for {int(lengths.max())} tokens"
            )

    def decide(self, window: Window, end: Clock, units: int) -> int:
        """See ``Arrangement``. What is cut into pieces is not padded."""
        return int(units == 1)

    def features(self, batch: Any, units: int) -> Tensor:
        """See ``Arrangement``: a length in 1,024s, and the rest of it."""
        lengths, _ = lengths_of(batch)
        return torch.stack([lengths // _PART, lengths % _PART], dim=1).half()

    def arrange(self, selected: Selected, note: int) -> tuple[NDArray[np.int64], dict[str, float]]:
        """See ``Arrangement``. Without features the order stays as it is."""
        return summed(self.arranging(selected, note), selected.group)

    def arranging(
        self, selected: Selected, note: int
    ) -> Steps[tuple[NDArray[np.int64], dict[str, float]]]:
        """See ``Arrangement``."""
        if selected.features is None:
            return selected.places, {}
        known = selected.features.reshape(-1, 2).astype(np.int64)
        lengths, places = known[:, 0] * _PART + known[:, 1], selected.places
        own = np.zeros_like(places)
        if selected.group.rank == 0:  # all ranks know all lengths, but only sums are shared
            own = group_lanes(places, selected.lanes, lengths[places], selected.rng)
        places = yield own
        return places, {"padding": padding(lengths[places])}


def lengths_of(batch: Any) -> tuple[Tensor, int]:
    """The number of each sample's tokens that are no padding, and the width of the batch.

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), and an ``attention_mask`` of the
            same shape; without it, nothing is padding.

    Raises:
        ScoreError: No token ids.
    """
    tokens, present = tokens_of(batch, f"{SETTING} {LENGTH!r}")
    return present.sum(dim=1), tokens.shape[1]


def group_lanes(
    places: NDArray[np.int64],
    lanes: NDArray[np.integer],
    lengths: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Order lessons so that those of a row are of similar length, and rows in random order.

    Args:
        places: Any numbers of the lessons, shape (L, S).
        lanes: Lane of each lesson, of the same shape.
        lengths: Length of each lesson, of the same shape.
        rng: Orders the rows, and lessons of one length.

    Returns:
        The places, each within the slots of its lane, int64 of shape (L, S). The same rows of all
        lanes have the shortest lessons, so no rank waits for another's longer batch.
    """
    rows, size = places.shape
    turn = rng.permutation(rows).repeat(size)
    lane = lanes.reshape(-1)
    slots = np.lexsort((turn, lane))
    lessons = np.lexsort((rng.random(lane.size), lengths.reshape(-1), lane))
    out = np.empty(lane.size, np.int64)
    out[slots] = places.reshape(-1)[lessons]
    return out.reshape(places.shape)


def padding(lengths: NDArray[np.int64]) -> float:
    """Share of padding in batches as long as their longest sample.

    Args:
        lengths: Shape (L, S); a row is a batch.
    """
    return 1 - lengths.mean().item() / max(1.0, lengths.max(axis=1).mean().item())
