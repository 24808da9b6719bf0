"""Scorers: from a model and a batch to one score per sample.

A model is any ComposerModel, wrapped or not (DDP, FSDP, torch.compile): its own ``forward(batch)`` is called
as in training, and what it is like is read from the module inside. Nothing here changes the batch, the model
or its mode.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module

from attent_stream.scoring import reference
from attent_stream.scoring.batch import ScoreError, batch_length, describe, split_batch
from attent_stream.scoring.extract import HeadError, find_head
from attent_stream.scoring.fidelity import FULL, Fidelity, FidelityError
from attent_stream.scoring.head import check_head
from attent_stream.scoring.headless import HeadlessForward
from attent_stream.scoring.last_layer import LastLayer
from attent_stream.scoring.memory import out_of_memory
from attent_stream.scoring.positions import at
from attent_stream.scoring.reduction import Reduction
from attent_stream.scoring.scores import BINARY, CLASSES, PROBABILITIES, REGRESSION, SCORES
from attent_stream.scoring.traits import Traits, function_name
from attent_stream.scoring.wrapping import is_sharded, unwrap

log = logging.getLogger(__name__)

_CALLABLE = "pass score=callable, (model, batch) -> float tensor of shape (B,)"


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One of ``SCORES`` for one model, or a user's callable.

    Args:
        name: Of the score.
        traits: Of the model.
        function: The user's ``(model, batch) -> (B,)``, or None for one of ``SCORES``.
        headless: How to score without the logits, or None where there is no way.
        reduction: What ``scores`` leaves out of a sample and of the model, or None.
        last: A classifier's last layer, where the score is computed from what it is given.
    """

    name: str
    traits: Traits
    function: Callable[[Module, Any], Tensor] | None = None
    headless: HeadlessForward | None = None
    reduction: Reduction | None = None
    last: LastLayer | None = None

    @property
    def reads_outputs(self) -> bool:
        """Whether ``from_outputs`` can score from a training forward's outputs: not with a callable, or by the head alone."""
        return self.function is None and bool(SCORES[self.name].outputs)

    def scores(self, model: Module, batch: Any, draw: tuple[int, ...] = ()) -> Tensor:
        """Scores of a batch on the model's device, by a forward of its own; see ``from_outputs``.

        A language model's logits are not computed where they need not be, and nothing that ``reduction`` leaves out.
        ``draw`` seeds what that draws at random.
        """
        if self.reduction is None:
            return self._scores(model, batch)
        batch = self.reduction.batch(batch)
        with self.reduction.forward(draw):
            return self._scores(model, batch)

    def _scores(self, model: Module, batch: Any) -> Tensor:
        if self.last is not None:
            return self.last.grad_norms(lambda: self.forward(model, batch), _target(batch), _logits)
        labels = self._token_labels(batch)
        if labels is None:
            if self.reduction is not None and self.reduction.strided:
                raise ScoreError(f"fidelity.tokens needs labels of shape (B, T), the batch has {describe(batch)}")
            return self.from_outputs(model, self.forward(model, batch), batch)
        positions = None if self.reduction is None else self.reduction.positions(labels)
        tokens, outputs = None, None
        score = SCORES[self.name]
        if self.headless is not None:
            must = not score.outputs
            tokens, outputs = self.headless(
                lambda: self.forward(model, batch), labels, _logits, positions, None if score.tokens else score.head, must
            )
            if tokens is None and must:
                raise ScoreError(f"score {self.name!r} is computed at the output head, and {self.headless.refused}; {_CALLABLE}")
            if tokens is not None and score.tokens is None:
                return tokens[0].float()
        else:
            outputs = self.forward(model, batch)
        if positions is not None:
            labels = at(labels, positions, reference.IGNORED)
        if tokens is None and positions is None:
            return self.from_outputs(model, outputs, batch)
        if tokens is None:
            return score.outputs[CLASSES](at(self._whole(_logits(outputs)), positions), labels).float()
        return score.tokens(*tokens, labels != reference.IGNORED).float()

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
            kind, outputs, target = self._arranged(self._whole(_logits(outputs)), target, isinstance(batch, Mapping))
            if kind not in SCORES[self.name].outputs:
                raise ScoreError(
                    f"score {self.name!r} is for {', '.join(SCORES[self.name].outputs) or 'what an output head is given'}, got"
                    f" a target that is {kind}; {_CALLABLE}"
                )
            return SCORES[self.name].outputs[kind](outputs, target).float()

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
        target = self._shifted(target)
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

    def _whole(self, logits: Tensor) -> Tensor:
        classes = None if self.headless is None else self.headless.classes
        if isinstance(logits, DTensor) or (classes is not None and logits.shape[-1] < classes):
            raise ScoreError(
                f"score {self.name!r} needs each rank to have all {classes or logits.shape[-1]} classes' logits, got"
                f" {tuple(logits.shape)} on this rank: replicate the output head of a tensor-parallel model, or {_CALLABLE}"
            )
        return logits

    def _shifted(self, target: Tensor) -> Tensor:
        if self.traits.shift_labels and not target.is_floating_point() and target.ndim >= 2:
            return torch.cat([target[:, 1:], torch.full_like(target[:, :1], reference.IGNORED)], dim=1)
        return target

    def _token_labels(self, batch: Any) -> Tensor | None:
        """The class of each token, shifted, where tokens can be scored without logits."""
        strided = self.reduction is not None and self.reduction.strided
        if (self.headless is None and not strided) or not isinstance(batch, Mapping):
            return None
        target = _target(batch)
        return None if target.is_floating_point() or target.ndim != 2 else self._shifted(target)

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


def build_scorer(
    score: str | Callable[[Module, Any], Tensor],
    model: Module,
    *,
    head: str | None = "auto",
    fidelity: Fidelity = FULL,
) -> Scorer:
    """The scorer for a model.

    Args:
        score: A name in ``SCORES``, or a callable ``(model, batch) -> (B,)`` float tensor. The callable gets
            the model as training has it (wrapped), in eval mode without gradients, and a microbatch on its
            device.
        model: A ComposerModel, wrapped or not; only looked at.
        head: How a language model's output head is scored without its logits, a name in ``head.PATHS``; None: not so.
        fidelity: How much of a sample and of the model is looked at; its proxy must be ``model``.

    Raises:
        ScoreError: A score that is neither, an unknown head.
        FidelityError: The model cannot be scored at this fidelity.
    """
    check_head(head)
    if isinstance(score, str) and score in SCORES:
        traits = Traits.of(model)
        headless = None if head is None or traits.forward_args is None else _headless(model, head, traits)
        text = headless is not None or traits.shift_labels
        own = replace(fidelity, proxy=None)
        reduction = None if own.full else Reduction(own, model, text=text)
        last = None if headless is not None or SCORES[score].outputs else _last_layer(score, model, traits, head)
        return Scorer(name=score, traits=traits, headless=headless, reduction=reduction, last=last)
    if callable(score):
        if not fidelity.full:
            raise FidelityError(f"fidelity: expected full for a score that is a callable, received {fidelity.name}")
        return Scorer(name=function_name(score), traits=Traits.of(model), function=score)
    raise ScoreError(
        f"score must be one of {', '.join(SCORES)}, or a callable (model, batch) -> (B,), got {score!r}"
    )


def score_batch(
    scorer: Scorer, model: Module, batch: Any, microbatch: int | None, draw: tuple[int, ...] = ()
) -> Tensor:
    """Score a batch, ``microbatch`` samples at a time, without gradients.

    The caller sets eval mode and the precision context, and makes sure that all ranks come here equally
    often.

    Args:
        scorer: How.
        model: The model as training has it (wrapped).
        batch: On the model's device; not changed.
        microbatch: Samples forwarded at once, or None for all.
        draw: Seeds what a reduced scorer draws at random.

    Returns:
        Float32, shape (B,), on the outputs' device.

    Raises:
        ScoreError: See ``Scorer.from_outputs``.
    """
    with (
        torch.no_grad()
    ):  # not inference_mode: FSDP keeps what it unshards there and cannot train on it later
        parts = [batch] if microbatch is None else split_batch(batch, microbatch)
        return torch.cat([scorer.scores(model, part, draw) for part in parts])


def _headless(model: Module, path: str, traits: Traits) -> HeadlessForward | None:
    try:
        return HeadlessForward(find_head(model), path=path, sharded=is_sharded(model))
    except HeadError as reason:
        if traits.shift_labels:  # of others, such as image classifiers, nobody expects it
            log.warning("Scoring computes all logits, as this model cannot do without them: %s.", reason)
        return None


def _last_layer(score: str, model: Module, traits: Traits, head: str | None) -> LastLayer:
    try:
        if head is None:
            raise HeadError("head is None")
        if traits.forward_args is not None:
            find_head(model)  # a language model's, which says why it has none
        return LastLayer(model)
    except HeadError as reason:
        raise ScoreError(f"score {score!r} is computed at the output head, and {reason}; {_CALLABLE}") from reason


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
