"""Scores that are more than a function of a model's outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from attent_stream.base.gather import RankGroup
from attent_stream.base.span import Clock
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.reading import Reading


@dataclass(frozen=True)
class Recipe:
    """A name of ``score`` that stands for several of AtteNT's arguments.

    Args:
        settings: The arguments. Mappings are joined with the user's, whose values win.
    """

    settings: Mapping[str, Any]


class Reference(Protocol):
    """A model whose score is taken from the learner's.

    Attributes:
        model: The model.
    """

    model: Module

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Read outputs as the learner's are read, where the model is of the same class."""

    def losses(self, batch: Any, microbatch: int) -> Tensor:
        """Scores of a batch on the model's device, float32 of shape (B,)."""

    def window_chosen(self, clock: Clock) -> None:
        """Change between two windows, whose scores are not compared."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from ``state_dict``'s state; an empty one says nothing."""


@dataclass(frozen=True, kw_only=True)
class RelativeScore:
    """A score minus that of a reference.

    Args:
        base: Name of the score that both models are given.
        parse: Makes settings of ``scoring.reference``.
        open: Makes the reference of these settings, the learner and a device.
    """

    base: str
    parse: Callable[[Any], Any]
    open: Callable[[Any, Module, torch.device], Reference]


class Likeness(Protocol):
    """Scores samples by their views, and counts the stream on the way."""

    @property
    def ready(self) -> bool:
        """Whether enough of the stream was counted."""

    def scores(self, view: NDArray) -> NDArray[np.float32]:
        """Scores of samples, shape (B,)."""

    def count(self, view: NDArray) -> None:
        """Count samples that this rank has read."""

    def advance(self) -> None:
        """Score by all that was counted until now. All ranks call this together."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs, the same on all ranks, which call this together."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state."""


@dataclass(frozen=True, kw_only=True)
class AlignedScore:
    """A score by how a step on a sample changes the loss of a target. The learner is asked, at its
    output head.
    """


@dataclass(frozen=True, kw_only=True)
class TargetScore:
    """A score by how samples are like a target. Workers read it off samples; no model is asked.

    Args:
        view: Name of what a worker makes of a batch, in ``VIEWS``.
        counts: Counts views of the target, (view) -> int64 array. Those of several are added.
        open: Makes the scores of the counts of each stream of the target, the weights of these
            streams, and the ranks that count the stream together.
    """

    view: str
    counts: Callable[[NDArray], NDArray[np.int64]]
    open: Callable[[Sequence[NDArray[np.int64]], Sequence[float], RankGroup], Likeness]
