"""Scorers: from a model and a batch to one score per sample.

A model is any ComposerModel, wrapped or not (DDP, FSDP, torch.compile). Its own ``forward(batch)``
is called as in training. Scoring does not change the batch, the model or its mode.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module

from attent_stream.base.empty import EMPTY
from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.first_reading import first_reading, target_path
from attent_stream.model.reading import (
    CLASSES,
    PROBABILITIES,
    Reading,
    arrange,
    at_path,
    countable,
    one_hot,
    shifted,
)
from attent_stream.model.reference import IGNORED
from attent_stream.model.traits import Traits
from attent_stream.score.headless import HeadlessForward
from attent_stream.score.last_layer import LastLayer
from attent_stream.score.operands import USE_CALLABLE, model_inputs, usual_logits, usual_target
from attent_stream.score.reduced_forward import ReducedForward
from attent_stream.score.scores import Score, empty_marked
from attent_stream.score.token_positions import take_tokens


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One score for one model.

    Args:
        name: Name of the score.
        score: What it is computed from.
        traits: Traits of the model.
        headless: Scores without computing the logits, or None where that is not possible.
        reduced: Leaves out a part of each sample or of the model, or None.
        last: A classifier's last layer, for scores that are computed from its input.
        reading: How outputs and labels belong together, once the model's loss has confirmed it.
            None: ``first_reading`` guesses it for each batch.
    """

    name: str
    score: Score
    traits: Traits
    headless: HeadlessForward | None = None
    reduced: ReducedForward | None = None
    last: LastLayer | None = None
    reading: Reading | None = None

    def read_by(self, reading: Reading | None, rows: Callable[[Any], int]) -> "Scorer":
        """Return a scorer that uses this reading of the model's outputs."""
        return replace(self, reading=reading)

    @property
    def reads_outputs(self) -> bool:
        """Whether ``from_outputs`` can score from a training forward's outputs."""
        return bool(self.score.outputs)

    def scores(self, model: Module, batch: Any, draw: tuple[int, ...] = ()) -> Tensor:
        """Score a batch with a forward of its own; see ``from_outputs``.

        Logits are computed only where they are needed.

        Args:
            model: The model.
            batch: On the model's device.
            draw: Seeds what ``reduced`` draws at random.
        """
        if self.reduced is None:
            return self._scores(model, batch)
        seen = self.reduced.batch(batch)
        with self.reduced.forward(draw):
            scores = self._scores(model, seen)
        labels = None if seen is batch else self._token_labels(batch)
        if labels is None:
            return scores
        # A sample whose labels were all cut off has no score. A sample without labels is EMPTY.
        return empty_marked(scores.masked_fill(scores == EMPTY, torch.nan), labels)

    def _scores(self, model: Module, batch: Any) -> Tensor:
        reading, forward = self._reading(batch), partial(self.forward, model, batch)
        if self.last is not None:
            target = self._classes(reading, batch)
            norms = self.last.grad_norms(forward, target.clamp(min=0), self._logits_of)
            return empty_marked(norms, target)
        labels = self._token_labels(batch)
        if labels is None:
            if self.reduced is not None and self.reduced.strided:
                raise ScoreError(
                    f"fidelity.tokens needs labels of shape (B, T), the batch has {describe(batch)}"
                )
            return self.from_outputs(model, forward(), batch)
        positions = None if self.reduced is None else self.reduced.positions(labels)
        tokens, outputs = None, None
        if self.headless is None:
            outputs = forward()
        else:
            at_head = None if self.score.tokens else self.score.head
            must = not self.reads_outputs
            tokens, outputs = self.headless(
                forward, labels, self._logits_of, positions, at_head, must
            )
            if tokens is None and must:
                raise ScoreError(
                    f"score {self.name!r} is computed at the output head, and "
                    f"{self.headless.refused}; {USE_CALLABLE}"
                )
            if tokens is not None and at_head is not None:
                return empty_marked(tokens[0].float(), labels)
        if tokens is None and positions is None:
            return self.from_outputs(model, outputs, batch)
        if positions is not None:
            labels = take_tokens(labels, positions, IGNORED)
        if tokens is None:
            z = take_tokens(self._whole(self._logits_of(outputs), reading), positions)
            scores = self.score.outputs[CLASSES](z, labels)
        else:
            scores = self.score.tokens(*tokens, labels != IGNORED)
        return empty_marked(scores.float(), labels)

    def forward(self, model: Module, batch: Any) -> Any:
        """The model's outputs for a batch on its device, without a loss of its own."""
        return model(model_inputs(self.traits, model, batch))

    def from_outputs(self, model: Module, outputs: Any, batch: Any) -> Tensor:
        """Score a batch from the outputs of a forward: the training forward's if ``reads_outputs``.

        Args:
            model: The model.
            outputs: What its forward returned, with the logits where ``reading`` has them.
            batch: What it was given, with the labels.

        Returns:
            Float32, shape (B,), detached, on the outputs' device. ``-inf`` (``EMPTY``) for a sample
            without any label. Not finite where a sample's outputs are not.

        Raises:
            ScoreError: There are no labels, or the outputs give no score per sample.
        """
        with torch.no_grad():
            kind, z, y = self._arranged(outputs, batch)
            if kind not in self.score.outputs:
                known = ", ".join(self.score.outputs) or "what an output head is given"
                raise ScoreError(
                    f"score {self.name!r} is for {known}, got a target that is {kind}; "
                    f"{USE_CALLABLE}"
                )
            return self.of_operands(kind, z, y)

    def of_operands(self, kind: str, outputs: Tensor, target: Tensor) -> Tensor:
        """Score from outputs and their target as ``arrange`` returns them; see ``from_outputs``."""
        smoothing = 0.0 if self.reading is None else self.reading.smoothing
        if kind == CLASSES and self.name == "loss" and smoothing:
            smooth = one_hot(target, outputs.shape[-1], smoothing)
            scores = self.score.outputs[PROBABILITIES](outputs, smooth).float()
        else:
            scores = self.score.outputs[kind](outputs, target).float()
        return empty_marked(scores, target) if kind == CLASSES else scores

    def _reading(self, batch: Any, z: Tensor | None = None) -> Reading:
        if self.reading is not None:
            return self.reading
        y = usual_target(batch)
        return first_reading(self.traits, z, y, outputs=(), target=target_path(batch))

    def _arranged(self, outputs: Any, batch: Any) -> tuple[str, Tensor, Tensor]:
        """The kind of the target, and outputs and target as ``arrange`` returns them."""
        try:
            z = self._logits_of(outputs)
            reading = self._reading(batch, z)
            y = at_path(batch, reading.target)
            return reading.kind, *arrange(reading, self._whole(z, reading), y)
        except LookupError as error:
            if self.reading is None:
                raise ScoreError(
                    f"score {self.name!r} needs outputs that fit the target, got outputs of shape "
                    f"{tuple(z.shape)} for {y.dtype} labels of shape {tuple(y.shape)}; "
                    f"{USE_CALLABLE}"
                ) from error
            raise ScoreError(
                f"score {self.name!r} is computed from {self.reading.describe()}, which this batch "
                f"does not have ({error}); {USE_CALLABLE}"
            ) from error

    def _logits_of(self, outputs: Any) -> Tensor:
        # A Hugging Face model's tuple begins with the loss only where the model was given labels.
        in_tuple = self.traits.forward_args is not None and isinstance(outputs, (tuple, list))
        if self.reading is None or self.reading.outputs is None or in_tuple:
            return usual_logits(outputs)
        return at_path(outputs, self.reading.outputs)

    def _whole(self, logits: Tensor, reading: Reading) -> Tensor:
        """Return logits; raise ScoreError where this rank does not have all classes."""
        expected = 0 if self.headless is None else self.headless.classes
        classes = logits.shape[-1 if reading.classes_last or logits.ndim < 2 else 1]
        if isinstance(logits, DTensor) or classes < expected:
            raise ScoreError(
                f"score {self.name!r} needs each rank to have all {expected or classes} classes' "
                f"logits, got {tuple(logits.shape)} on this rank: replicate the output head of a "
                f"tensor-parallel model, or {USE_CALLABLE}"
            )
        return logits

    def _classes(self, reading: Reading, batch: Any) -> Tensor:
        """The class of each sample, ``-100`` where ignored."""
        if reading.kind != CLASSES or reading.smoothing:
            raise ScoreError(
                f"score {self.name!r} is for one class a sample, got a loss of "
                f"{reading.describe()}; {USE_CALLABLE}"
            )
        target = at_path(batch, reading.target)
        target = target.reshape(len(target)) if target.numel() == len(target) else target
        return countable(target, torch.iinfo(torch.int64).max, reading.ignored)

    def _token_labels(self, batch: Any) -> Tensor | None:
        """The shifted label of each token, or None where tokens are not scored one by one."""
        strided = self.reduced is not None and self.reduced.strided
        if (self.headless is None and not strided) or not isinstance(batch, Mapping):
            return None
        reading = self._reading(batch)
        if reading.kind != CLASSES or not reading.classes_last:
            return None
        target = at_path(batch, reading.target)
        if target.is_floating_point() or target.ndim != 2:
            return None
        labels = shifted(target) if reading.shift else target
        if self.headless is None:
            return labels
        return countable(labels, self.headless.classes, reading.ignored)
