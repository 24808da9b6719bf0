"""Builds the scorer for a score, a model and a fidelity."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.model.traits import Traits, function_name
from attent_stream.model.wrapping import is_sharded
from attent_stream.score.fidelity import FULL, Fidelity
from attent_stream.score.function_scorer import FunctionScorer
from attent_stream.score.head import check_head
from attent_stream.score.headless import HeadlessForward
from attent_stream.score.last_layer import LastLayer
from attent_stream.score.operands import USE_CALLABLE
from attent_stream.score.reduced_forward import ReducedForward
from attent_stream.score.scorer import Scorer
from attent_stream.score.scores import SCORES, Score

log = logging.getLogger(__name__)


def build_scorer(
    score: str | Score | Callable[[Module, Any], Tensor],
    model: Module,
    *,
    head: str | None = "auto",
    fidelity: Fidelity = FULL,
) -> Scorer:
    """Build the scorer for a model.

    Args:
        score: A name in ``SCORES``, ``package.module:name`` of a ``Score`` or a function, a
            ``Score``, or a function ``(model, batch) -> (B,)`` float tensor. The function is called
            with the model as wrapped for training, in eval mode without gradients, and a microbatch
            on its device.
        model: A ComposerModel, wrapped or not. It is not changed.
        head: How a language model's output head is scored without its logits, a name in
            ``head.PATHS``. None: all logits are computed.
        fidelity: How much of a sample and of the model is used. ``model`` must be its proxy.

    Raises:
        ScoreError: An unknown score or head, or a model that the score cannot be computed for.
        FidelityError: The model cannot be scored at this fidelity.
    """
    check_head(head)
    found, traits = _found(score), Traits.of(model)
    if not isinstance(found, Score):
        if not fidelity.full:
            raise FidelityError(
                f"fidelity: expected full for a score that is a callable, received {fidelity.name}"
            )
        return FunctionScorer(
            name=function_name(found), score=Score(), traits=traits, function=found
        )
    at_head = found.tokens is not None or found.head is not None
    headless = None
    if at_head and head is not None and traits.forward_args is not None:
        headless = _headless(model, head, traits)
    text = headless is not None or traits.shift_labels
    own = replace(fidelity, proxy=None)
    name = score if isinstance(score, str) else found.name
    last = None
    if headless is None and not found.outputs:
        last = _last_layer(name, model, traits, head, found.classifies)
    return Scorer(
        name=name,
        score=found,
        traits=traits,
        headless=headless,
        reduced=None if own.full else ReducedForward(own, model, text=text),
        last=last,
    )


def _found(score: str | Score | Callable[[Module, Any], Tensor]) -> Any:
    """The ``Score`` or the function that a setting names."""
    if isinstance(score, str) and (score in SCORES or ":" in score):
        try:
            score = SCORES.get(score)
        except ValueError as error:
            raise ScoreError(str(error)) from error
    if not isinstance(score, Score) and not callable(score):
        raise ScoreError(
            f"score must be one of {', '.join(SCORES.names)}, or a callable (model, batch) -> (B,),"
            f" got {score!r}"
        )
    return score


def _headless(model: Module, path: str, traits: Traits) -> HeadlessForward | None:
    try:
        return HeadlessForward(find_head(model), path=path, sharded=is_sharded(model))
    except HeadError as reason:
        if traits.shift_labels:  # nobody expects it of others, such as image classifiers
            log.warning("Scoring computes all logits, as this model needs them: %s.", reason)
        return None


def _last_layer(
    score: str, model: Module, traits: Traits, head: str | None, classifies: bool
) -> LastLayer:
    try:
        if head is None:
            raise HeadError("head is None")
        if traits.forward_args is not None:
            find_head(model)  # raises why a language model has none
        if not classifies:
            raise HeadError("the model is no causal language model")
        return LastLayer(model)
    except HeadError as reason:
        raise ScoreError(
            f"score {score!r} is computed at the output head, and {reason}; {USE_CALLABLE}"
        ) from reason
