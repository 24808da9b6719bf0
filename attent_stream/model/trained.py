"""One forward of a model with its loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attent_stream.model.reading import Reading, at_path
from attent_stream.model.reference import IGNORED
from attent_stream.model.saved import SavedEntropy, saved_entropies


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One forward of a model with its loss.

    Args:
        outputs: The model's outputs.
        batch: The batch that it was given.
        loss: What its ``loss`` returned.
        samples: Samples of the batch.
        saved: The cross-entropies in the loss's graph.
    """

    outputs: Any
    batch: Any
    loss: Any
    samples: int
    saved: tuple[SavedEntropy, ...] = ()

    @classmethod
    def of(cls, outputs: Any, batch: Any, loss: Any, samples: int) -> "Trained":
        """Build it with the cross-entropies in the loss's graph."""
        saved = tuple(saved_entropies(loss))
        return cls(outputs=outputs, batch=batch, loss=loss, samples=samples, saved=saved)

    @property
    def entropy(self) -> SavedEntropy | None:
        """The loss's cross-entropy. None unless it has exactly one."""
        return self.saved[0] if len(self.saved) == 1 else None

    @cached_property
    def total(self) -> float | None:
        """The loss as a number, copied from the device once. None where it is no number."""
        total = total_loss(self.loss)
        return None if total is None else total.double().item()

    @cached_property
    def labels(self) -> Tensor | None:
        """Labels that the loss's cross-entropy did not ignore, in its order; see ``entropy``."""
        entropy = self.entropy
        return None if entropy is None else entropy.labels[entropy.labels != entropy.ignored]


def operands(reading: Reading, trained: Trained) -> tuple[Tensor, Tensor]:
    """Outputs and target of a forward under a reading, as ``arrange`` returns them.

    Raises:
        LookupError: The reading does not fit.
    """
    if reading.outputs is not None:
        return reading.arranged(trained.outputs, trained.batch)
    return saved_operands(reading, trained)


def saved_operands(reading: Reading, trained: Trained) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, n, C) and labels (B, n) that the loss has saved.

    Raises:
        LookupError: The loss does not have exactly one cross-entropy, or its labels are not the
            batch's, in the order of its samples.
    """
    ordered = None if trained.entropy is None else trained.entropy.by_sample(trained.samples)
    if ordered is None:
        raise LookupError("the loss has no cross-entropy over the batch's samples")
    log_probs, labels = ordered
    own = at_path(trained.batch, reading.target).reshape(trained.samples, -1)
    own = own[:, 1:] if reading.shift else own
    if own.is_floating_point() or own.shape[1] > labels.shape[1]:
        raise LookupError("no class indices")
    counted = labels[:, : own.shape[1]] != IGNORED
    same = torch.equal(labels[:, : own.shape[1]][counted], own.to(labels)[counted])
    if not same or (labels[:, own.shape[1] :] != IGNORED).any():
        raise LookupError("the loss's labels are not the batch's")
    return log_probs, labels


def total_loss(loss: Any) -> Tensor | None:
    """The scalar that Composer trains on: a mapping's ``total``, else the sum of the means.

    None where the loss is no float tensor, or mapping or sequence of tensors.
    """
    if isinstance(loss, Mapping) and isinstance(loss.get("total"), Tensor):
        loss = loss["total"]
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    terms = [loss] if isinstance(loss, Tensor) else loss
    if (
        not isinstance(terms, (tuple, list))
        or not terms
        or not all(isinstance(one, Tensor) for one in terms)
    ):
        return None
    total = sum((one.detach().mean() for one in terms[1:]), terms[0].detach().mean())
    return total if total.is_floating_point() else None
