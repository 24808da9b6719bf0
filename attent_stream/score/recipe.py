"""Scores that are more than a function of a model's outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module

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
