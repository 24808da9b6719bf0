"""Per-sample losses out of the graph of a training loss.

A cross-entropy keeps the log-probability of every class and its labels for the backward pass. So
each sample's loss can be looked up there at no cost, and how the model pairs outputs with labels
can be seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attent_stream.base.empty import EMPTY
from attent_stream.model.reference import IGNORED, sample_mean

_FURTHEST = 6  # nodes from the loss to its cross-entropy: factors and sums, but no model
_NAMES = ("NllLossBackward0", "NllLoss2DBackward0")


@dataclass(frozen=True, kw_only=True)
class SavedEntropy:
    """What one cross-entropy has saved.

    Args:
        log_probs: Float of shape (N, C), or (N, C, H, W); detached.
        labels: Int64 of shape (N,), or (N, H, W).
        ignored: The label that the loss leaves out (``ignore_index``).
        weight: Of each class, float of shape (C,), or None.
    """

    log_probs: Tensor
    labels: Tensor
    ignored: int
    weight: Tensor | None

    def by_sample(self, samples: int) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities of shape (B, n, C) and labels of shape (B, n), ``-100`` where ignored.

        Args:
            samples: Of the batch, B, in whose order the labels are taken to be.

        Returns:
            None where the labels do not divide by B.
        """
        if samples < 1 or self.labels.numel() % samples or not self.labels.numel():
            return None
        log_probs = self.log_probs if self.log_probs.ndim == 2 else self.log_probs.movedim(1, -1)
        labels = self.labels.masked_fill(self.labels == self.ignored, IGNORED)
        return log_probs.reshape(samples, -1, log_probs.shape[-1]), labels.reshape(samples, -1)


def saved_entropies(loss: Any) -> list[SavedEntropy]:
    """All cross-entropies near a loss in its graph; empty for a loss without a graph or without
    any.

    Args:
        loss: Of a training forward, before its backward: a tensor, or a mapping or sequence of
            them.
    """
    if isinstance(loss, Tensor):
        nodes = _entropies(loss.grad_fn)
    else:
        parts = (
            loss.values()
            if isinstance(loss, Mapping)
            else loss
            if isinstance(loss, (tuple, list))
            else ()
        )
        return [found for part in parts for found in saved_entropies(part)]
    with torch.no_grad():
        return [
            SavedEntropy(
                log_probs=node._saved_self.detach(),
                labels=node._saved_target,
                ignored=_signed(node._saved_ignore_index),
                weight=node._saved_weight,
            )
            for node in nodes
        ]


def saved_losses(loss: Any, samples: int) -> Tensor | None:
    """The mean loss of each sample over its valid labels.

    Args:
        loss: Of a training forward, before its backward: a cross-entropy over all labels, times or
            divided by anything.
        samples: Of the batch, B, in whose order the labels are taken to be.

    Returns:
        Float32 of shape (B,), detached, ``-inf`` (``EMPTY``) for a sample without any valid label.
        None where there is no cross-entropy, or more than one, or its labels are weighted or do not
        divide by B. Whether they lie in the order of the samples is not known here.
    """
    found = saved_entropies(loss) if isinstance(loss, Tensor) else []
    if len(found) != 1 or found[0].weight is not None:
        return None
    ordered = found[0].by_sample(samples)
    if ordered is None:
        return None
    log_probs, labels = ordered
    with torch.no_grad():
        valid = labels != IGNORED
        nll = -log_probs.gather(2, torch.where(valid, labels, 0)[..., None])[..., 0].float()
        return sample_mean(nll, valid).masked_fill(~valid.any(dim=1), EMPTY)


def _entropies(node: Any) -> list[Any]:
    """The cross-entropies within reach behind a node of the graph."""
    found, front, seen = [], [node], set()
    for _ in range(_FURTHEST):
        behind = []
        for one in front:
            if one is None or one in seen:
                continue
            seen.add(one)
            if one.name() in _NAMES:
                found.append(one)
            else:
                behind += [other for other, _ in one.next_functions]
        front = behind
    return found


def _signed(index: int) -> int:
    return index - 2**64 if index >= 2**63 else index
