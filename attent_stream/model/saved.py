"""Per-sample losses from the graph of a training loss.

A cross-entropy saves the log-probability of every class and its labels for the backward pass. They
give each sample's loss at no cost, and show how the model pairs outputs with labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attent_stream.base.empty import EMPTY
from attent_stream.model.reference import IGNORED

_MAX_DEPTH = 6  # nodes from the loss to its cross-entropy: factors and sums, but no model
_NAMES = ("NllLossBackward0", "NllLoss2DBackward0")


@dataclass(frozen=True, kw_only=True)
class SavedEntropy:
    """The tensors that a cross-entropy has saved.

    Args:
        log_probs: Float of shape (N, C), or (N, C, H, W); detached.
        labels: Int64 of shape (N,), or (N, H, W).
        ignored: The label that the loss leaves out (``ignore_index``).
        weight: Weight of each class, float of shape (C,), or None.
    """

    log_probs: Tensor
    labels: Tensor
    ignored: int
    weight: Tensor | None

    def by_sample(self, samples: int) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities of shape (B, n, C) and labels of shape (B, n), ``-100`` where ignored.

        Args:
            samples: Samples of the batch, B. The labels are assumed to be in their order.

        Returns:
            None where the number of labels is not a multiple of B.
        """
        if samples < 1 or self.labels.numel() % samples or not self.labels.numel():
            return None
        log_probs = self.log_probs if self.log_probs.ndim == 2 else self.log_probs.movedim(1, -1)
        labels = self.labels.masked_fill(self.labels == self.ignored, IGNORED)
        return log_probs.reshape(samples, -1, log_probs.shape[-1]), labels.reshape(samples, -1)

    def losses(self, samples: int) -> Tensor | None:
        """Mean loss of each sample over its labels, unweighted.

        Args:
            samples: See ``by_sample``.

        Returns:
            Float32 of shape (B,), ``-inf`` (``EMPTY``) for a sample without any valid label. None
            where the number of labels is not a multiple of B.
        """
        labels = self.labels
        if samples < 1 or labels.numel() % samples or not labels.numel():
            return None
        # Few operations, as this is done for every batch: ignored labels have a loss of 0.
        losses = functional.nll_loss(
            self.log_probs, labels, ignore_index=self.ignored, reduction="none"
        )
        sums = losses.reshape(samples, -1).float().sum(dim=1)
        counts = (labels != self.ignored).reshape(samples, -1).sum(dim=1)
        return (sums / counts).masked_fill_(counts == 0, EMPTY)


def saved_entropies(loss: Any) -> list[SavedEntropy]:
    """Find the cross-entropies near a loss in its graph.

    Args:
        loss: Loss of a training forward, before the backward: a tensor, or a mapping or sequence of
            tensors.

    Returns:
        Empty for a loss without a graph or without a cross-entropy.
    """
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, (tuple, list)):
        return [found for one in loss for found in saved_entropies(one)]
    nodes = _entropies(loss.grad_fn) if isinstance(loss, Tensor) else []
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
    """Mean loss of each sample over its valid labels.

    Args:
        loss: Loss of a training forward, before the backward: a cross-entropy over all labels,
            times any factor.
        samples: Samples of the batch, B. The labels are assumed to be in their order.

    Returns:
        Float32 of shape (B,), detached, ``-inf`` (``EMPTY``) for a sample without any valid label.
        None unless there is exactly one cross-entropy, without class weights, whose number of
        labels is a multiple of B.
    """
    found = saved_entropies(loss) if isinstance(loss, Tensor) else []
    if len(found) != 1 or found[0].weight is not None:
        return None
    return found[0].losses(samples)


def _entropies(node: Any) -> list[Any]:
    """The cross-entropies at most ``_MAX_DEPTH`` nodes behind a node of the graph."""
    found, front, seen = [], [node], set()
    for _ in range(_MAX_DEPTH):
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
