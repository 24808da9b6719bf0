"""Scores of uncertainty, from the logits of each token.

Entropy: uncertainty sampling (Lewis and Gale, 1994). Margin: Scheffer et al., 2001.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.model import reference
from attent_stream.model.reading import CLASSES
from attent_stream.model.reference import IGNORED, at_least_float32
from attent_stream.score.chunked import Compiled, transformed
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.logit_scores import SMALL
from attent_stream.score.scores import Score


def entropies(z: Tensor, labels: Tensor) -> Tensor:
    """Entropy of each row's softmax, in nats.

    Args:
        z: Float32 or float64, shape (N, C).
        labels: Unused.
    """
    p = z.softmax(dim=1)
    return z.logsumexp(dim=1) - torch.where(p > 0, p * z, 0.0).sum(dim=1)


def margins(z: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's logit. It is positive where the model is wrong.

    Args:
        z: Float32 or float64, shape (N, C).
        labels: Ints of shape (N,), in [0, C).
    """
    mine = torch.arange(z.shape[1], device=z.device)[None] == labels[:, None]
    own = torch.where(mine, z, 0.0).sum(dim=1)
    return torch.where(mine, float("-inf"), z).amax(dim=1) - own


class RowScore:
    """The mean of a function of the logits over a sample's valid tokens, a few tokens at a time.

    Args:
        rows: (logits of shape (N, C), labels of shape (N,)) -> (N,).
    """

    def __init__(self, rows: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._rows = rows
        self._compiled = Compiled(rows)

    def of_head(self, head: HeadInputs) -> Tensor:
        """Scores of shape (B,) from the inputs of the output head."""
        with torch.no_grad(), torch.autocast(head.hidden.device.type, enabled=False):
            head = head.cast()
            hidden = head.hidden.reshape(-1, head.hidden.shape[-1])

            def logits(rows: slice) -> Tensor:
                z = F.linear(hidden[rows], head.weight, head.bias)
                return transformed(at_least_float32(z), head.scale, head.softcap)

            return self._mean(logits, head.labels, len(head.weight), hidden.device)

    def of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores of shape (B,) from logits of shape (B, ..., C) and labels of shape (B, ...)."""
        flat = logits.reshape(-1, logits.shape[-1])
        return self._mean(
            lambda rows: at_least_float32(flat[rows]),
            labels.long(),
            logits.shape[-1],
            logits.device,
        )

    def _mean(
        self, logits: Callable[[slice], Tensor], labels: Tensor, classes: int, device: torch.device
    ) -> Tensor:
        flat = labels.reshape(-1)
        function = self._compiled if len(flat) * classes >= SMALL else self._rows
        size = max(1, (SMALL if device.type == "cpu" else 2**28) // classes)
        chunks = []
        for first in range(0, len(flat), size):
            rows = slice(first, first + size)
            chunks.append(function(logits(rows), flat[rows].clamp(min=0)))
        values = torch.cat(chunks) if chunks else torch.zeros(len(flat), device=device)
        valid = labels != IGNORED
        values = values.reshape(labels.shape).masked_fill(~valid, 0.0)
        return reference.sample_mean(values, valid)


def _score(rows: Callable[[Tensor, Tensor], Tensor]) -> Score:
    score = RowScore(rows)
    return Score(head=score.of_head, outputs={CLASSES: score.of_logits})


ENTROPY = _score(entropies)
MARGIN = _score(margins)
