"""Per-sample losses out of the graph of a training loss: its cross-entropy has saved every logit's log-probability for the
backward, so what the labels got is there to be looked up, for nothing.
"""

from typing import Any

import torch
from torch import Tensor

from attent_stream.scoring.reference import sample_mean

_FURTHEST = 6  # nodes from the loss to its cross-entropy: factors and sums, but no model


def saved_losses(loss: Any, samples: int) -> Tensor | None:
    """The mean loss of each sample over its valid labels.

    Args:
        loss: Of a training forward, before its backward: a cross-entropy over all labels, times or divided by anything.
        samples: Of the batch, B, in whose order the labels are taken to be.

    Returns:
        Float32 of shape (B,), detached, NaN for a sample without any valid label; None where there is no such cross-entropy,
        there are several as near, or its labels are weighted or do not divide by B. Whether they lie in the order of the samples is not
        known here.
    """
    if not isinstance(loss, Tensor) or samples < 1:
        return None
    nodes = _entropies(loss.grad_fn)
    if len(nodes) != 1 or nodes[0]._saved_weight is not None:
        return None
    node = nodes[0]
    with torch.no_grad():
        log_probs, target = node._saved_self, node._saved_target
        if log_probs.ndim != 2 or len(target) % samples:
            return None
        valid = target != _signed(node._saved_ignore_index)
        nll = -log_probs.gather(1, torch.where(valid, target, 0)[:, None])[:, 0].float()
        return sample_mean(nll.reshape(samples, -1), valid.reshape(samples, -1))


def _entropies(node: Any) -> list[Any]:
    """The cross-entropies nearest behind a node of the graph."""
    found, front = [], [node]
    for _ in range(_FURTHEST):
        behind = []
        for one in front:
            if one is None:
                continue
            if one.name() == "NllLossBackward0":
                found.append(one)
            else:
                behind += [other for other, _ in one.next_functions]
        if found:
            break
        front = behind
    return found


def _signed(index: int) -> int:
    return index - 2**64 if index >= 2**63 else index
