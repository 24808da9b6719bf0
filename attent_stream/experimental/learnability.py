"""Learnability: a sample's loss minus its loss under a reference model.

The reference is a given model (RHO-loss: Mindermann et al., ICML 2022, arXiv 2206.07137, equation
3, where it was trained on held-out data), or an older snapshot of the learner. With a snapshot,
samples score high where the learner has become worse. Noise has a high loss under both models and
cancels.
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
    """The model that the loss is compared with: ``model`` or ``snapshot``.

    Args:
        model: A folder with a Hugging Face model (``config.json`` and safetensors weights), or a
            ComposerModel.
        snapshot: Time string: how often the learner's weights are copied, between two windows. The
            first copy is of its initial weights.

    Raises:
        ValueError: Both or none are given, or one is out of range.
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
        """Read ``{model: ...}`` or ``{snapshot: 200ba}``.

        Raises:
            ValueError: The value is neither.
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
    """Computes the losses of samples under the reference model.

    Args:
        settings: What the reference is.
        learner: The learner, wrapped as in training.
        device: Where the reference runs.

    Attributes:
        model: The reference model, in eval mode.

    Raises:
        ScoreError: The model cannot be built, or a snapshot is asked of a sharded learner.
    """

    def __init__(self, settings: ReferenceSettings, learner: Module, device: torch.device) -> None:
        self._every = settings.snapshot
        self._learner = unwrap(learner)
        self._taken = 0  # periods of ``snapshot`` before the weights were copied
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
        """Use the learner's reading for a reference of the same class."""
        same = type(self.model) is type(self._learner)
        self._scorer.read_by(reading if same else None, form)

    def losses(self, batch: Any, microbatch: int) -> Tensor:
        """Losses of a batch on the reference's device, float32 of shape (B,), without gradients."""
        return self._scorer(batch, microbatch)

    def window_chosen(self, clock: Clock) -> None:
        """Copy the learner's weights where it is time.

        Call this between two windows, so that the scores of one window compare.
        """
        if self._every is None:
            return
        passed = int(clock.elapsed(self._every.unit) / self._every.value + 1e-9)
        if passed > self._taken:
            self._taken = passed
            self.model.load_state_dict(self._learner.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The weights of a snapshot and when they were copied. Empty for a given model."""
        if self._every is None:
            return {}
        return {"taken": self._taken, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Load what ``state_dict`` returned. An empty state is ignored.

        Raises:
            ScoreError: The snapshot is of another model.
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
