"""Scorers: from a model and a batch to one score per sample.

A model is any ComposerModel, wrapped or not (DDP, FSDP, torch.compile): its own ``forward(batch)``
is called as in training, and what it is like is read from the module inside. Nothing here changes
the batch, the model or its mode.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module

from attent_stream.base.empty import EMPTY
from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model import reference
from attent_stream.model.batch import batch_length, describe, split_batch
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.model.reading import (
    BINARY,
    CLASSES,
    PROBABILITIES,
    REGRESSION,
    Reading,
    arrange,
    at_path,
    countable,
    one_hot,
)
from attent_stream.model.traits import Traits, function_name
from attent_stream.model.wrapping import is_sharded, unwrap
from attent_stream.score.fidelity import FULL, Fidelity
from attent_stream.score.head import check_head
from attent_stream.score.headless import HeadlessForward
from attent_stream.score.last_layer import LastLayer
from attent_stream.score.reduced_forward import ReducedForward
from attent_stream.score.scores import SCORES, Score, empty_marked
from attent_stream.score.token_positions import take_tokens

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
        reading: Which outputs are held against which labels, once the model's loss has shown it;
            None: as the model's class and the names in outputs and batch suggest.
        rows: How many samples a batch holds.
    """

    name: str
    traits: Traits
    function: Callable[[Module, Any], Tensor] | None = None
    headless: HeadlessForward | None = None
    reduction: ReducedForward | None = None
    last: LastLayer | None = None
    reading: Reading | None = None
    rows: Callable[[Any], int] = batch_length

    def read_by(self, reading: Reading | None, rows: Callable[[Any], int]) -> "Scorer":
        """The same score, by this reading of the model's outputs."""
        return replace(self, reading=reading, rows=rows)

    @property
    def reads_outputs(self) -> bool:
        """Whether ``from_outputs`` can score from a training forward's outputs: not with a
        callable, or by the head alone.
        """
        return self.function is None and bool(SCORES.get(self.name).outputs)

    def scores(self, model: Module, batch: Any, draw: tuple[int, ...] = ()) -> Tensor:
        """Scores of a batch on the model's device, by a forward of its own; see ``from_outputs``.

        A language model's logits are not computed where they need not be, and nothing that
        ``reduction`` leaves out. ``draw`` seeds what that draws at random.
        """
        if self.reduction is None:
            return self._scores(model, batch)
        seen = self.reduction.batch(batch)
        with self.reduction.forward(draw):
            scores = self._scores(model, seen)
        labels = None if seen is batch else self._token_labels(batch)
        if labels is None:
            return scores
        # No label in what was looked at is no score; no label at all is known.
        return empty_marked(scores.masked_fill(scores == EMPTY, torch.nan), labels)

    def _scores(self, model: Module, batch: Any) -> Tensor:
        if self.last is not None:
            target = self._last_target(batch)
            norms = self.last.grad_norms(
                lambda: self.forward(model, batch), target.clamp(min=0), self._logits_of
            )
            return empty_marked(norms, target)
        labels = self._token_labels(batch)
        if labels is None:
            if self.reduction is not None and self.reduction.strided:
                raise ScoreError(
                    f"fidelity.tokens needs labels of shape (B, T), the batch has {describe(batch)}"
                )
            return self.from_outputs(model, self.forward(model, batch), batch)
        positions = None if self.reduction is None else self.reduction.positions(labels)
        tokens, outputs = None, None
        score = SCORES.get(self.name)
        if self.headless is not None:
            must = not score.outputs
            tokens, outputs = self.headless(
                lambda: self.forward(model, batch),
                labels,
                self._logits_of,
                positions,
                None if score.tokens else score.head,
                must,
            )
            if tokens is None and must:
                raise ScoreError(
                    f"score {self.name!r} is computed at the output head, and "
                    f"{self.headless.refused}; {_CALLABLE}"
                )
            if tokens is not None and score.tokens is None:
                return empty_marked(tokens[0].float(), labels)
        else:
            outputs = self.forward(model, batch)
        if positions is not None:
            labels = take_tokens(labels, positions, reference.IGNORED)
        if tokens is None and positions is None:
            return self.from_outputs(model, outputs, batch)
        if tokens is None:
            found = take_tokens(self._whole(self._logits_of(outputs)), positions)
            return empty_marked(score.outputs[CLASSES](found, labels).float(), labels)
        return empty_marked(score.tokens(*tokens, labels != reference.IGNORED).float(), labels)

    def forward(self, model: Module, batch: Any) -> Any:
        """The model's outputs for a batch on its device, without labels, so that it computes no
        loss of its own.

        With a callable this is what the callable returns. Raises ScoreError for a batch without
        labels, and for whatever the callable raises but for memory that runs out.
        """
        if self.function is not None:
            return self._called(model, batch)
        if self.reading is None:
            _target(batch)  # said here, before the model trips over the same batch less clearly
        return model(self._inputs(model, batch))

    def from_outputs(self, model: Module, outputs: Any, batch: Any) -> Tensor:
        """Scores of a batch from the outputs of ``forward``, or of the training forward if
        ``reads_outputs``.

        Args:
            model: The model.
            outputs: A tensor, a mapping with ``logits``, or a tuple with the logits first (after
                the loss, if any).
            batch: A mapping with ``labels``, or (input, target).

        Returns:
            Float32, shape (B,), detached, on the outputs' device. ``-inf`` (``EMPTY``) for a sample
            without any label, else not finite where its outputs are not.

        Raises:
            ScoreError: No labels, or outputs that give no score per sample.
        """
        if self.function is not None:
            return self._checked(outputs, batch)
        with torch.no_grad():
            kind, outputs, target = self._operands(outputs, batch)
            if kind not in SCORES.get(self.name).outputs:
                raise ScoreError(
                    f"score {self.name!r} is for "
                    f"{', '.join(SCORES.get(self.name).outputs) or 'what an output head is given'}, got"
                    f" a target that is {kind}; {_CALLABLE}"
                )
            return self.of_operands(kind, outputs, target)

    def of_operands(self, kind: str, outputs: Tensor, target: Tensor) -> Tensor:
        """Scores from outputs and their target, as ``reading.arrange`` gives them; see
        ``from_outputs``.
        """
        if (
            kind == CLASSES
            and self.name == "loss"
            and self.reading is not None
            and self.reading.smoothing
        ):
            smooth = one_hot(target, outputs.shape[-1], self.reading.smoothing)
            scores = SCORES.get(self.name).outputs[PROBABILITIES](outputs, smooth).float()
        else:
            scores = SCORES.get(self.name).outputs[kind](outputs, target).float()
        return empty_marked(scores, target) if kind == CLASSES else scores

    def _operands(self, outputs: Any, batch: Any) -> tuple[str, Tensor, Tensor]:
        """The kind of a target, and outputs and target as its score takes them."""
        if self.reading is None:
            logits = self._whole(_logits(outputs))
            kind, outputs, target = self._arranged(
                logits, _target(batch), isinstance(batch, Mapping)
            )
            return (
                kind,
                outputs,
                countable(target, outputs.shape[-1]) if kind == CLASSES else target,
            )
        try:
            z, target = arrange(
                self.reading, self._logits_of(outputs), at_path(batch, self.reading.target)
            )
        except LookupError as error:
            raise ScoreError(
                f"score {self.name!r} is computed from {self.reading.describe()}, which this batch "
                "does not"
                f" have ({error}); {_CALLABLE}"
            ) from error
        return self.reading.kind, self._whole(z), target

    def _logits_of(self, outputs: Any) -> Tensor:
        # A Hugging Face model's tuple begins with the loss where it was given labels, and only
        # there.
        in_tuple = self.traits.forward_args is not None and isinstance(outputs, (tuple, list))
        if self.reading is None or self.reading.outputs is None or in_tuple:
            return _logits(outputs)
        return at_path(outputs, self.reading.outputs)

    def _last_target(self, batch: Any) -> Tensor:
        reading = self.reading
        if reading is None:
            return _target(batch)
        if reading.kind != CLASSES or reading.smoothing:
            raise ScoreError(
                f"score {self.name!r} is for one class a sample, got a loss of "
                f"{reading.describe()}; {_CALLABLE}"
            )
        target = at_path(batch, reading.target)
        target = target.reshape(len(target)) if target.numel() == len(target) else target
        return countable(target, torch.iinfo(torch.int64).max, reading.ignored)

    def _inputs(self, model: Module, batch: Any) -> Any:
        names = self.traits.forward_args
        if names is None or not isinstance(batch, Mapping):
            return batch
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        if "use_cache" in names:
            # Keys and values of a whole sequence, which nobody reads
            inputs.setdefault("use_cache", False)
        if self.traits.encoder_decoder and "decoder_input_ids" not in inputs:
            prepare = getattr(unwrap(model).model, "prepare_decoder_input_ids_from_labels", None)
            if prepare is None:
                raise ScoreError(
                    f"an encoder-decoder batch needs decoder_input_ids, got {describe(batch)}; or "
                    f"{_CALLABLE}"
                )
            inputs["decoder_input_ids"] = prepare(labels=_target(batch))
        return inputs

    def _arranged(
        self, outputs: Tensor, target: Tensor, classes_last: bool
    ) -> tuple[str, Tensor, Tensor]:
        """The kind of a target, with the classes of the outputs last and everything of the shape
        its score takes.
        """
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
                # One sigmoid a class
                if self.traits.forward_args is None and self.traits.dense == BINARY:
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
                f"score {self.name!r} needs each rank to have all {classes or logits.shape[-1]} "
                "classes' logits, got"
                f" {tuple(logits.shape)} on this rank: replicate the output head of a "
                f"tensor-parallel model, or {_CALLABLE}"
            )
        return logits

    def _shifted(self, target: Tensor) -> Tensor:
        if self.traits.shift_labels and not target.is_floating_point() and target.ndim >= 2:
            return _shifted_left(target)
        return target

    def _token_labels(self, batch: Any) -> Tensor | None:
        """The class of each token, shifted, where tokens can be scored without logits."""
        strided = self.reduction is not None and self.reduction.strided
        if (self.headless is None and not strided) or not isinstance(batch, Mapping):
            return None
        reading = self.reading
        if reading is not None and (reading.kind != CLASSES or not reading.classes_last):
            return None
        target = _target(batch) if reading is None else at_path(batch, reading.target)
        if target.is_floating_point() or target.ndim != 2:
            return None
        shift = self.traits.shift_labels if reading is None else reading.shift
        labels = _shifted_left(target) if shift else target
        if self.headless is None:
            return labels
        ignored = None if reading is None else reading.ignored
        return countable(labels, self.headless.classes, ignored)

    def _called(self, model: Module, batch: Any) -> Any:
        try:
            return self.function(model, batch)
        except Exception as error:
            if out_of_memory(error):
                raise
            kind = type(error).__name__
            raise ScoreError(
                f"score {self.name!r} raised {kind} on {describe(batch)}: {error}"
            ) from error

    def _checked(self, scores: Any, batch: Any) -> Tensor:
        expected = (self.rows(batch),)
        if not isinstance(scores, Tensor):
            got = describe(scores)
            raise ScoreError(
                f"score {self.name!r} must return a float tensor of shape {expected}, got {got}"
            )
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
        score: A name in ``SCORES``, ``package.module:name`` of a ``Score`` or a callable, or a
            callable ``(model, batch) -> (B,)`` float tensor. The callable gets the model as training has it (wrapped), in eval mode without gradients,
            and a microbatch on its device.
        model: A ComposerModel, wrapped or not; only looked at.
        head: How a language model's output head is scored without its logits, a name in
            ``head.PATHS``; None: not so.
        fidelity: How much of a sample and of the model is looked at; its proxy must be ``model``.

    Raises:
        ScoreError: A score that is neither, an unknown head.
        FidelityError: The model cannot be scored at this fidelity.
    """
    check_head(head)
    if isinstance(score, str) and (score in SCORES or ":" in score):
        found = _found(score)
        if not isinstance(found, Score):
            return build_scorer(found, model, head=head, fidelity=fidelity)
        traits = Traits.of(model)
        headless = (
            None if head is None or traits.forward_args is None else _headless(model, head, traits)
        )
        text = headless is not None or traits.shift_labels
        own = replace(fidelity, proxy=None)
        reduction = None if own.full else ReducedForward(own, model, text=text)
        last = (
            None
            if headless is not None or found.outputs
            else _last_layer(score, model, traits, head)
        )
        return Scorer(name=score, traits=traits, headless=headless, reduction=reduction, last=last)
    if callable(score):
        if not fidelity.full:
            raise FidelityError(
                f"fidelity: expected full for a score that is a callable, received {fidelity.name}"
            )
        return Scorer(name=function_name(score), traits=Traits.of(model), function=score)
    raise ScoreError(
        f"score must be one of {', '.join(SCORES.names)}, or a callable (model, batch) -> (B,), got "
        f"{score!r}"
    )


def _found(score: str) -> Any:
    try:
        return SCORES.get(score)
    except ValueError as error:
        raise ScoreError(str(error)) from error


def score_batch(
    scorer: Scorer,
    model: Module,
    batch: Any,
    microbatch: int | None,
    draw: tuple[int, ...] = (),
    split: Callable[[Any, int], list[Any]] = split_batch,
) -> Tensor:
    """Score a batch, ``microbatch`` samples at a time, without gradients.

    The caller sets eval mode and the precision context, and makes sure that all ranks come here
    equally often.

    Args:
        scorer: How.
        model: The model as training has it (wrapped).
        batch: On the model's device; not changed.
        microbatch: Samples forwarded at once, or None for all.
        draw: Seeds what a reduced scorer draws at random.
        split: Parts of a batch of at most so many samples.

    Returns:
        Float32, shape (B,), on the outputs' device.

    Raises:
        ScoreError: See ``Scorer.from_outputs``.
    """
    with (
        torch.no_grad()
    ):  # not inference_mode: FSDP keeps what it unshards there and cannot train on it later
        parts = [batch] if microbatch is None else split(batch, microbatch)
        return torch.cat([scorer.scores(model, part, draw) for part in parts])


def _headless(model: Module, path: str, traits: Traits) -> HeadlessForward | None:
    try:
        return HeadlessForward(find_head(model), path=path, sharded=is_sharded(model))
    except HeadError as reason:
        if traits.shift_labels:  # of others, such as image classifiers, nobody expects it
            log.warning(
                "Scoring computes all logits, as this model cannot do without them: %s.", reason
            )
        return None


def _last_layer(score: str, model: Module, traits: Traits, head: str | None) -> LastLayer:
    try:
        if head is None:
            raise HeadError("head is None")
        if traits.forward_args is not None:
            find_head(model)  # a language model's, which says why it has none
        return LastLayer(model)
    except HeadError as reason:
        raise ScoreError(
            f"score {score!r} is computed at the output head, and {reason}; {_CALLABLE}"
        ) from reason


def _target(batch: Any) -> Tensor:
    if isinstance(batch, Mapping):
        if not isinstance(batch.get("labels"), Tensor):
            raise ScoreError(
                f"the batch has no tensor 'labels', it has {describe(batch)}; add labels or "
                f"{_CALLABLE}"
            )
        return batch["labels"]
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[1]
    raise ScoreError(
        f"a batch must be a mapping with 'labels' or (input, target), got {describe(batch)}; or "
        f"{_CALLABLE}"
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


def _shifted_left(labels: Tensor) -> Tensor:
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], reference.IGNORED)], dim=1)


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    """Shape without dimensions of size 1 behind the first."""
    return tuple(tensor.shape[:1]) + tuple(size for size in tensor.shape[1:] if size != 1)
