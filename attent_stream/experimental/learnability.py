"""Learnability: a sample's loss minus its loss under a reference, which has learnt what is easy to
learn.

The reference is a model given (RHO-loss: Mindermann et al., ICML 2022, arXiv 2206.07137, equation
3, where it was trained on held-out data), or an older snapshot of the learner itself: then what
scores high is what the learner has come to do worse on. Noise is high under both, and cancels.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.base.span import Clock, Span
from attent_stream.experimental.proxy import other_model
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.reading import Reading
from attent_stream.model.wrapping import is_sharded, unwrap
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import FULL
from attent_stream.score.microbatches import MicrobatchScorer
from attent_stream.score.recipe import RelativeScore


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """What the loss is compared with: one of both.

    Args:
        model: A folder with a Hugging Face model (``config.json`` and safetensors weights), or a
            ComposerModel.
        snapshot: Time string, how often the learner's weights are taken anew, between two windows;
            the first are those it starts with.

    Raises:
        ValueError: None or both, a model that is neither, or a snapshot that is no time above 0.
    """

    model: Any = None
    snapshot: Span | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.snapshot is None):
            raise ValueError(
                "reference needs one of model and snapshot, got "
                f"{'none' if self.model is None else 'both'}"
            )
        if self.model is not None and not isinstance(self.model, (str, Module)):
            raise ValueError(
                "reference.model must be a folder or a ComposerModel, got "
                f"{type(self.model).__name__}"
            )
        if self.snapshot is not None and not self.snapshot.value > 0:
            raise ValueError(f"reference.snapshot must be a time above 0, got {self.snapshot}")

    @classmethod
    def parse(cls, value: Any) -> "ReferenceSettings":
        """From ``{model: ...}`` or ``{snapshot: 200ba}``.

        Raises:
            ValueError: Neither.
        """
        if not isinstance(value, Mapping) or not value or set(value) - {"model", "snapshot"}:
            raise ValueError(
                f"reference must be {{model: folder}} or {{snapshot: time}}, got {value!r}"
            )
        snapshot = value.get("snapshot")
        return cls(
            model=value.get("model"), snapshot=None if snapshot is None else Span.parse(snapshot)
        )


class Reference:
    """The reference at work.

    Args:
        settings: What it is.
        learner: The model as training has it (wrapped).
        device: Where it lives.

    Attributes:
        model: The model that is compared with.

    Raises:
        ScoreError: It cannot be built, or no snapshot taken of a sharded model.
    """

    def __init__(self, settings: ReferenceSettings, learner: Module, device: torch.device) -> None:
        self._every = settings.snapshot
        self._learner = unwrap(learner)
        self._taken = 0  # how many times ``snapshot`` had passed when the weights were taken
        if settings.snapshot is None:
            try:
                self.model = other_model(settings.model, learner, device, seed=0, key="reference")
            except FidelityError as error:
                raise ScoreError(str(error)) from error
        elif is_sharded(learner):
            raise ScoreError(
                "reference.snapshot needs whole weights on each rank, got a sharded model: give a "
                "reference.model"
            )
        else:
            self.model = copy.deepcopy(self._learner)
            self.model.zero_grad()
        self.model.eval().requires_grad_(False)
        self._scorer = MicrobatchScorer(build_scorer("loss", self.model, fidelity=FULL), self.model)

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Read the reference's outputs as the learner's, where it is a model of the same class."""
        same = type(self.model) is type(self._learner)
        self._scorer.read_by(reading if same else None, form)

    def losses(self, batch: Any, microbatch: int) -> Tensor:
        """Of a batch on its device, float32 of shape (B,); without gradients."""
        return self._scorer(batch, microbatch)

    def window_chosen(self, clock: Clock) -> None:
        """Take the learner's weights anew where it is time; to be called between two windows, so
        that one's scores compare.
        """
        if self._every is None:
            return
        passed = int(clock.elapsed(self._every.unit) / self._every.value + 1e-9)
        if passed > self._taken:
            self._taken = passed
            self.model.load_state_dict(self._learner.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """A snapshot's weights and when they were taken; empty of a model given."""
        return (
            {} if self._every is None else {"taken": self._taken, "model": self.model.state_dict()}
        )

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from ``state_dict``'s state; an empty one says nothing.

        Raises:
            ScoreError: A snapshot of another model.
        """
        if self._every is None or not state:
            return
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ScoreError(
                "the checkpoint's reference.snapshot is of another model "
                f"({str(error).splitlines()[0]})"
            ) from error
        self._taken = int(state["taken"])


LEARNABILITY = RelativeScore(base="loss", parse=ReferenceSettings.parse, open=Reference)
