"""The scores by name: what each is computed from. ``docs/scores.md`` explains when to use which."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attent_stream.base.empty import EMPTY
from attent_stream.base.registry import Registry
from attent_stream.model import reference
from attent_stream.model.reading import BINARY, CLASSES, PROBABILITIES, REGRESSION
from attent_stream.model.reference import IGNORED
from attent_stream.score.grad_norm import HeadInputs, head_grad_norms
from attent_stream.score.logit_scores import logit_losses, logit_scores
from attent_stream.score.ngrams import ngram_counts
from attent_stream.score.recipe import AlignedScore, TargetScore
from attent_stream.score.resemblance import Resemblance


def empty_marked(scores: Tensor, labels: Tensor) -> Tensor:
    """Return scores with ``EMPTY`` for each sample without any label.

    Args:
        scores: Float of shape (B,).
        labels: Class indices of shape (B, ...), ``-100`` where ignored.
    """
    return scores.masked_fill((labels == IGNORED).reshape(len(labels), -1).all(dim=1), EMPTY)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score. Samples with a higher score are taught first.

    Args:
        tokens: Computes it from a language model's token scores: (nll, residual_sq, valid), each
            of shape (B, T) -> (B,).
        head: Computes it from the inputs of the output head -> (B,). None where ``tokens`` is
            enough.
        outputs: Computes it from the outputs, by kind of target: (outputs (B, ..., C), target) ->
            (B,). Empty where the outputs are not enough.
        classifies: Whether a classifier's last linear layer may stand for the output head.
        name: Its name in messages, where it is not in ``SCORES``.
    """

    tokens: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    head: Callable[[HeadInputs], Tensor] | None = None
    outputs: dict[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    classifies: bool = False
    name: str = "of your own"


def _residual(nll: Tensor, residual_sq: Tensor, valid: Tensor) -> Tensor:
    return reference.sample_mean(residual_sq, valid).sqrt()


def _loss(nll: Tensor, residual_sq: Tensor, valid: Tensor) -> Tensor:
    return reference.sample_mean(nll, valid)


def _residuals_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return _residual(*logit_scores(logits, labels), labels != IGNORED)


def _losses_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return reference.sample_mean(logit_losses(logits, labels), labels != IGNORED)


# A user's own score is ``package.module:name``: a ``Score``, or a function (model, batch) -> (B,).
# Residual: AtteNT (arXiv 2602.20461).
SCORES: Registry[Any] = Registry(
    "score",
    {
        "residual": Score(
            tokens=_residual,
            outputs={
                CLASSES: _residuals_of_logits,
                PROBABILITIES: reference.residual_from_probabilities,
                BINARY: reference.binary_residual,
                REGRESSION: reference.regression_residual,
            },
        ),
        "loss": Score(
            tokens=_loss,
            outputs={
                CLASSES: _losses_of_logits,
                PROBABILITIES: reference.loss_from_probabilities,
                BINARY: reference.binary_loss,
                REGRESSION: reference.regression_loss,
            },
        ),
        "grad_norm": Score(head=head_grad_norms, classifies=True),
        "alignment": AlignedScore(),
        "resemblance": TargetScore(view="ngrams", counts=ngram_counts, open=Resemblance),
    },
)
