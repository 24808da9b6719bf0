"""Scorers: from a model and a batch to one score per sample.

A model is any ComposerModel, wrapped or not (DDP, FSDP, torch.compile): its own ``forward(batch)`` is called
as in training, and what it is like is read from the module inside. Nothing here changes the batch, the model
or its mode.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.scoring import reference
from attent_stream.scoring.batch import ScoreError, batch_length, describe, split_batch

# What the target of a model is: class indices, class probabilities, independent yes/no outputs, or numbers.
CLASSES, PROBABILITIES, BINARY, REGRESSION = "classes", "probabilities", "binary", "regression"

# score -> kind of target -> (outputs (B, ...), target) -> (B,)
SCORES: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "residual": {
        CLASSES: reference.residual_from_logits,
        PROBABILITIES: reference.residual_from_probabilities,
        BINARY: reference.binary_residual,
        REGRESSION: reference.regression_residual,
    },
    "loss": {
        CLASSES: reference.loss_from_logits,
        PROBABILITIES: reference.loss_from_probabilities,
        BINARY: reference.binary_loss,
        REGRESSION: reference.regression_loss,
    },
}
_CALLABLE = "pass score=callable, (model, batch) -> float tensor of shape (B,)"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a scorer must know of a model.

    Args:
        shift_labels: The output at a token predicts the next one's label (causal language models).
        forward_args: Names that a Hugging Face forward takes, or None for another model.
        encoder_decoder: It needs ``decoder_input_ids`` when it gets no labels.
        dense: What a target of the outputs' own shape is: ``probabilities``, ``binary`` or ``regression``.
    """

    shift_labels: bool
    forward_args: frozenset[str] | None
    encoder_decoder: bool
    dense: str

    @classmethod
    def of(cls, model: Module) -> "Traits":
        """Read them from a model, wrapped or not."""
        inner = unwrap(model)
        forward_args = getattr(
            inner, "model_forward_args", None
        )  # Composer's HuggingFaceModel and its subclasses
        config = getattr(inner, "config", None)
        return cls(
            shift_labels=bool(getattr(inner, "shift_labels", False)),
            forward_args=None if forward_args is None else frozenset(forward_args),
            encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
            dense=_dense_by_config(config) if forward_args is not None else _dense_by_loss(inner),
        )


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One of ``SCORES`` for one model, or a user's callable.

    Args:
        name: Of the score.
        traits: Of the model.
        function: The user's ``(model, batch) -> (B,)``, or None for one of ``SCORES``.
    """

    name: str
    traits: Traits
    function: Callable[[Module, Any], Tensor] | None = None

    @property
    def reads_outputs(self) -> bool:
        """Whether ``from_outputs`` can score from a training forward's outputs: not with a callable."""
        return self.function is None

    def forward(self, model: Module, batch: Any) -> Any:
        """The model's outputs for a batch on its device, without labels, so that it computes no loss of its
        own.

        With a callable this is what the callable returns. Raises ScoreError for a batch without labels, and
        for whatever the callable raises but for memory that runs out.
        """
        if self.function is not None:
            return self._called(model, batch)
        _target(batch)  # said here, before the model trips over the same batch less clearly
        return model(self._inputs(model, batch))

    def from_outputs(self, model: Module, outputs: Any, batch: Any) -> Tensor:
        """Scores of a batch from the outputs of ``forward``, or of the training forward if ``reads_outputs``.

        Args:
            model: The model.
            outputs: A tensor, a mapping with ``logits``, or a tuple with the logits first (after the loss, if
                any).
            batch: A mapping with ``labels``, or (input, target).

        Returns:
            Float32, shape (B,), detached, on the outputs' device. Not finite for a sample without any valid
            label or whose outputs are not finite.

        Raises:
            ScoreError: No labels, or outputs that give no score per sample.
        """
        if self.function is not None:
            return self._checked(outputs, batch)
        with torch.no_grad():
            target = _target(batch)
            kind, outputs, target = self._arranged(_logits(outputs), target, isinstance(batch, Mapping))
            return SCORES[self.name][kind](outputs, target).float()

    def _inputs(self, model: Module, batch: Any) -> Any:
        names = self.traits.forward_args
        if names is None or not isinstance(batch, Mapping):
            return batch
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        if "use_cache" in names:
            inputs.setdefault("use_cache", False)  # keys and values of a whole sequence, which nobody reads
        if self.traits.encoder_decoder and "decoder_input_ids" not in inputs:
            prepare = getattr(unwrap(model).model, "prepare_decoder_input_ids_from_labels", None)
            if prepare is None:
                raise ScoreError(
                    f"an encoder-decoder batch needs decoder_input_ids, got {describe(batch)}; or {_CALLABLE}"
                )
            inputs["decoder_input_ids"] = prepare(labels=_target(batch))
        return inputs

    def _arranged(self, outputs: Tensor, target: Tensor, classes_last: bool) -> tuple[str, Tensor, Tensor]:
        """The kind of a target, with the classes of the outputs last and everything of the shape its score
        takes."""
        if self.traits.shift_labels and not target.is_floating_point() and target.ndim >= 2:
            target = torch.cat([target[:, 1:], torch.full_like(target[:, :1], reference.IGNORED)], dim=1)
        if target.shape == outputs.shape:
            kind = self.traits.dense
            if kind == PROBABILITIES:
                outputs, target = outputs.movedim(1, -1), target.movedim(1, -1)
            return kind, outputs, target
        if _squeezed(target) == _squeezed(outputs):  # (B, 1) for (B,)
            kind = BINARY if self.traits.dense == BINARY else REGRESSION
            return kind, outputs.reshape(target.shape), target
        if not target.is_floating_point() and outputs.ndim == target.ndim + 1:
            if not classes_last and outputs.shape[:1] + outputs.shape[2:] == target.shape:
                outputs = outputs.movedim(1, -1)
            if outputs.shape[:-1] == target.shape:
                if self.traits.forward_args is None and self.traits.dense == BINARY:  # one sigmoid a class
                    classes = torch.arange(outputs.shape[-1], device=target.device)
                    return BINARY, outputs, target.unsqueeze(-1) == classes
                return CLASSES, outputs, target
        raise ScoreError(
            f"score {self.name!r} needs outputs that fit the target,"
            f" got outputs of shape {tuple(outputs.shape)} for {target.dtype} labels"
            f" of shape {tuple(target.shape)}; {_CALLABLE}"
        )

    def _called(self, model: Module, batch: Any) -> Any:
        try:
            return self.function(model, batch)
        except Exception as error:
            if out_of_memory(error):
                raise
            kind = type(error).__name__
            raise ScoreError(f"score {self.name!r} raised {kind} on {describe(batch)}: {error}") from error

    def _checked(self, scores: Any, batch: Any) -> Tensor:
        expected = (batch_length(batch),)
        if not isinstance(scores, Tensor):
            got = describe(scores)
            raise ScoreError(f"score {self.name!r} must return a float tensor of shape {expected}, got {got}")
        if tuple(scores.shape) != expected or not scores.is_floating_point():
            raise ScoreError(
                f"score {self.name!r} must return a float tensor of shape {expected},"
                f" got {scores.dtype} of shape {tuple(scores.shape)}"
            )
        return scores.detach().float()


def build_scorer(score: str | Callable[[Module, Any], Tensor], model: Module) -> Scorer:
    """The scorer for a model.

    Args:
        score: A name in ``SCORES``, or a callable ``(model, batch) -> (B,)`` float tensor. The callable gets
            the model as training has it (wrapped), in eval mode without gradients, and a microbatch on its
            device.
        model: A ComposerModel, wrapped or not; only looked at.

    Raises:
        ScoreError: A score that is neither.
    """
    if isinstance(score, str) and score in SCORES:
        return Scorer(name=score, traits=Traits.of(model))
    if callable(score):
        return Scorer(name=_name(score), traits=Traits.of(model), function=score)
    raise ScoreError(
        f"score must be one of {', '.join(SCORES)}, or a callable (model, batch) -> (B,), got {score!r}"
    )


def score_batch(scorer: Scorer, model: Module, batch: Any, microbatch: int | None) -> Tensor:
    """Score a batch, ``microbatch`` samples at a time, without gradients.

    The caller sets eval mode and the precision context, and makes sure that all ranks come here equally
    often.

    Args:
        scorer: How.
        model: The model as training has it (wrapped).
        batch: On the model's device; not changed.
        microbatch: Samples forwarded at once, or None for all.

    Returns:
        Float32, shape (B,), on the outputs' device.

    Raises:
        ScoreError: See ``Scorer.from_outputs``.
    """
    with (
        torch.no_grad()
    ):  # not inference_mode: FSDP keeps what it unshards there and cannot train on it later
        parts = [batch] if microbatch is None else split_batch(batch, microbatch)
        return torch.cat([scorer.from_outputs(model, scorer.forward(model, part), part) for part in parts])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory has run out, here or (Composer's FSDP hooks) on another rank."""
    return isinstance(error, torch.OutOfMemoryError) or "CUDA out of memory" in str(error)


def unwrap(model: Module) -> Module:
    """The module inside of DDP, FSDP and torch.compile."""
    while isinstance(model, (DistributedDataParallel, FullyShardedDataParallel, OptimizedModule)):
        model = model._orig_mod if isinstance(model, OptimizedModule) else model.module
    return model


def _target(batch: Any) -> Tensor:
    if isinstance(batch, Mapping):
        if not isinstance(batch.get("labels"), Tensor):
            raise ScoreError(
                f"the batch has no tensor 'labels', it has {describe(batch)}; add labels or {_CALLABLE}"
            )
        return batch["labels"]
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[1]
    raise ScoreError(
        f"a batch must be a mapping with 'labels' or (input, target), got {describe(batch)}; or {_CALLABLE}"
    )


def _logits(outputs: Any) -> Tensor:
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, (tuple, list)) and outputs:
        has_loss = isinstance(outputs[0], Tensor) and outputs[0].ndim == 0 and len(outputs) > 1
        found = outputs[1] if has_loss else outputs[0]
    if not isinstance(found, Tensor) or found.ndim == 0:
        raise ScoreError(
            f"the model's outputs give no score per sample, got {describe(outputs)} without logits;"
            f" {_CALLABLE}"
        )
    return found


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    """Shape without dimensions of size 1 behind the first."""
    return tuple(tensor.shape[:1]) + tuple(size for size in tensor.shape[1:] if size != 1)


def _dense_by_config(config: Any) -> str:
    """As Hugging Face's sequence and image classifiers choose their loss (``problem_type``)."""
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or (problem is None and getattr(config, "num_labels", 1) == 1):
        return REGRESSION
    return BINARY


def _dense_by_loss(module: Module) -> str:
    """By the name of a ComposerClassifier's loss function; a model without one is taken for a regression."""
    name = _name(getattr(module, "_loss_fn", None)).lower().replace("_", "")
    if name in ("binarycrossentropywithlogits", "bcewithlogitsloss"):
        return BINARY
    return PROBABILITIES if name in ("softcrossentropy", "crossentropy", "crossentropyloss") else REGRESSION


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
