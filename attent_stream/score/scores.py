"""The scores by name: what each is computed from. ``docs/scores.md`` says what they are for."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.base.empty import EMPTY
from attent_stream.model import reference
from attent_stream.model.reading import BINARY, CLASSES, PROBABILITIES, REGRESSION
from attent_stream.model.reference import IGNORED
from attent_stream.score.chunked import Compiled, transformed
from attent_stream.score.grad_norm import HeadInputs, head_grad_norms
from attent_stream.score.head import SMALL, logit_losses, logit_scores


def empty_marked(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores with ``EMPTY`` for each sample that has no label.

    Args:
        scores: Float of shape (B,).
        labels: Class indices of shape (B, ...), ``-100`` where they do not count.
    """
    return scores.masked_fill((labels == IGNORED).reshape(len(labels), -1).all(dim=1), EMPTY)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score; higher = teach it.

    Args:
        tokens: From a language model's token scores: (nll, residual_sq, valid), each (B, T) ->
            (B,).
        head: From what the logits are computed from -> (B,); None where ``tokens`` say all.
        outputs: By kind of target: (outputs (B, ..., C), target) -> (B,). Empty where no outputs
            tell.
    """

    tokens: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    head: Callable[[HeadInputs], Tensor] | None = None
    outputs: dict[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)


def _residual(nll: Tensor, residual_sq: Tensor, valid: Tensor) -> Tensor:
    return reference.sample_mean(residual_sq, valid).sqrt()


def _loss(nll: Tensor, residual_sq: Tensor, valid: Tensor) -> Tensor:
    return reference.sample_mean(nll, valid)


def _residuals_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return _residual(*logit_scores(logits, labels), labels != IGNORED)


def _losses_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return reference.sample_mean(logit_losses(logits, labels), labels != IGNORED)


def entropies(z: Tensor, labels: Tensor) -> Tensor:
    """Entropy of each row's softmax, in nats.

    Args:
        z: Float32 or wider, shape (N, C).
        labels: Unused.
    """
    p = z.softmax(dim=1)
    return z.logsumexp(dim=1) - torch.where(p > 0, p * z, 0.0).sum(dim=1)


def margins(z: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's: above 0 where the model is wrong.

    Args:
        z: Float32 or wider, shape (N, C).
        labels: Ints of shape (N,), in [0, C).
    """
    mine = torch.arange(z.shape[1], device=z.device)[None] == labels[:, None]
    own = torch.where(mine, z, 0.0).sum(dim=1)
    return torch.where(mine, float("-inf"), z).amax(dim=1) - own


class RowScore:
    """A score that is the mean of something over a sample's valid tokens, each from its own logits,
    of few tokens at once.

    Args:
        rows: (logits of shape (N, C), labels of shape (N,)) -> (N,).
    """

    def __init__(self, rows: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._rows = rows
        self._compiled = Compiled(rows)

    def of_head(self, head: HeadInputs) -> Tensor:
        """From what the logits are computed from."""
        with torch.no_grad(), torch.autocast(head.hidden.device.type, enabled=False):
            head = head.cast()
            hidden = head.hidden.reshape(-1, head.hidden.shape[-1])

            def logits(some: slice) -> Tensor:
                z = F.linear(hidden[some], head.weight, head.bias)
                return transformed(_wide(z), head.scale, head.softcap)

            return self._mean(logits, head.labels, len(head.weight), hidden.device)

    def of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """From logits of shape (..., C) and labels of shape (...)."""
        flat = logits.reshape(-1, logits.shape[-1])
        return self._mean(
            lambda some: _wide(flat[some]), labels.long(), logits.shape[-1], logits.device
        )

    def _mean(
        self, logits: Callable[[slice], Tensor], labels: Tensor, classes: int, device: torch.device
    ) -> Tensor:
        flat = labels.reshape(-1)
        function = self._compiled if len(flat) * classes >= SMALL else self._rows
        size = max(1, (SMALL if device.type == "cpu" else 2**28) // classes)
        parts = []
        for first in range(0, len(flat), size):
            some = slice(first, first + size)
            parts.append(function(logits(some), flat[some].clamp(min=0)))
        valid = labels != IGNORED
        values = (
            torch.cat(parts).reshape(labels.shape)
            if parts
            else torch.zeros(labels.shape, device=device)
        )
        return reference.sample_mean(values.masked_fill(~valid, 0.0), valid)


def _wide(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()


def _rows(function: Callable[[Tensor, Tensor], Tensor]) -> Score:
    score = RowScore(function)
    return Score(head=score.of_head, outputs={CLASSES: score.of_logits})


# Residual: AtteNT (arXiv 2602.20461). Entropy: uncertainty sampling (Lewis and Gale, 1994). Margin:
# Scheffer et al., 2001.
SCORES: dict[str, Score] = {
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
    "grad_norm": Score(head=head_grad_norms),
    "entropy": _rows(entropies),
    "margin": _rows(margins),
}
