"""Readings that reproduce the loss that a model returned: what is scored is then what is trained
on.

A model's labels may be shifted or not, its target may be classes or numbers, its outputs may hold
several heads. None of this is believed: the mean loss under a reading is held against the model's
own on a batch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from attent_stream.model.loss_hints import LossHints
from attent_stream.model.reading import (
    BINARY,
    CLASSES,
    PROBABILITIES,
    REGRESSION,
    Path,
    Reading,
    arrange,
    at_path,
    position_losses,
    tensors_of,
)
from attent_stream.model.reference import IGNORED
from attent_stream.model.saved import SavedEntropy, saved_entropies

_RTOL, _ATOL = 2e-4, 1e-5  # of a loss in float32
_RTOL_HALF = 1e-2  # of one in bfloat16 or float16


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One forward of a model with its loss.

    Args:
        outputs: What the model returned.
        batch: What it was given.
        loss: What its ``loss`` returned.
        samples: Of the batch.
        saved: The cross-entropies in the loss's graph; empty where it has none.
    """

    outputs: Any
    batch: Any
    loss: Any
    samples: int
    saved: tuple[SavedEntropy, ...] = ()

    @classmethod
    def of(cls, outputs: Any, batch: Any, loss: Any, samples: int) -> "Trained":
        """With what the loss's graph has saved."""
        return cls(
            outputs=outputs,
            batch=batch,
            loss=loss,
            samples=samples,
            saved=tuple(saved_entropies(loss)),
        )

    @property
    def entropy(self) -> SavedEntropy | None:
        """The loss's cross-entropy, where it has exactly one."""
        return self.saved[0] if len(self.saved) == 1 else None

    @cached_property
    def total(self) -> float | None:
        """The number that was trained on, where it is one; taken from the device once."""
        total = total_loss(self.loss)
        return None if total is None else total.double().item()

    @cached_property
    def labels(self) -> Tensor | None:
        """The labels that the loss's cross-entropy counted, in its order; None where it has not
        exactly one.
        """
        entropy = self.entropy
        return None if entropy is None else entropy.labels[entropy.labels != entropy.ignored]


def matching(trained: Trained, prior: Reading | None, hints: LossHints) -> list[Reading]:
    """The readings that reproduce the loss, most likely first.

    Args:
        trained: A forward with its loss.
        prior: What the model's class says; None where it says nothing.
        hints: What the model says of its loss.

    Returns:
        Empty where none does. Of one pair of outputs and labels the readings of one kind only,
        which later batches may tell apart; of several pairs those of all, as two may be equal at
        first.
    """
    with torch.no_grad():
        found: list[Reading] = []
        for groups in _groups(trained, prior, hints):
            for group in groups:
                fitting = [
                    reading for reading in dict.fromkeys(group) if fits(reading, trained, hints)
                ]
                if fitting:
                    found += fitting
                    break
        return found or [one for one in _of_graph(trained, prior) if fits(one, trained, hints)]


def says_nothing(trained: Trained) -> bool:
    """Whether a forward shows no reading to be right or wrong: its loss is not finite, or it has no
    label that counts.
    """
    if trained.total is None:
        return False
    unlabelled = trained.labels is not None and not trained.labels.numel()
    return unlabelled or not math.isfinite(trained.total)


def fits(reading: Reading, trained: Trained, hints: LossHints) -> bool:
    """Whether a reading reproduces the loss of a forward.

    Where the loss's graph holds its labels, these must be the reading's, in the same order.
    """
    if trained.total is None:
        return False
    with torch.no_grad():
        try:
            z, y = operands(reading, trained)
        except LookupError:
            return False
        counted = trained.labels if reading.kind == CLASSES else None
        if counted is not None and not torch.equal(y[y != IGNORED], counted.to(y.device)):
            return False
        losses, valid = position_losses(reading, z, y)
        if not valid.any():
            return False
        value = trained.total - _auxiliary(trained.outputs, hints)
        rtol = (
            _RTOL
            if total_loss(trained.loss).dtype in (torch.float32, torch.float64)
            else _RTOL_HALF
        )
        return any(
            math.isclose(value, mean, rel_tol=rtol, abs_tol=_ATOL)
            for mean in _means(reading.kind, losses, valid)
        )


def operands(reading: Reading, trained: Trained) -> tuple[Tensor, Tensor]:
    """Outputs and target of a forward under a reading, as ``arrange`` gives them; raises
    LookupError.
    """
    if reading.outputs is not None:
        return reading.arranged(trained.outputs, trained.batch)
    return saved_operands(reading, trained)


def saved_operands(reading: Reading, trained: Trained) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, n, C) that the loss has saved and its labels (B, n), where the batch
    has the same.

    Raises:
        LookupError: The loss has not exactly one cross-entropy, or its labels are not the batch's
            in the order of its samples.
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
    """The number that is trained on, as Composer takes it: a mapping's ``total``, else the sum of
    means.
    """
    if isinstance(loss, Mapping) and isinstance(loss.get("total"), Tensor):
        loss = loss["total"]
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    parts = [loss] if isinstance(loss, Tensor) else loss
    if (
        not isinstance(parts, (tuple, list))
        or not parts
        or not all(isinstance(one, Tensor) for one in parts)
    ):
        return None
    total = sum((one.detach().mean() for one in parts[1:]), parts[0].detach().mean())
    return total if total.is_floating_point() else None


def _means(kind: str, losses: Tensor, valid: Tensor) -> Iterator[float]:
    """What a loss may be of the losses of positions, (B, n): their mean, the mean of samples'
    means, sums.
    """
    losses = torch.where(valid, losses, 0.0).double()
    total = losses.sum()
    yield (total / valid.sum()).item()
    has = valid.any(dim=1)
    yield (losses.sum(dim=1)[has] / valid.sum(dim=1)[has]).mean().item()
    # A sum over a sample's positions is another loss of it than their mean, unless all have as
    # many.
    if kind != CLASSES or losses.shape[1] == 1:
        yield (total / len(losses)).item()
        yield total.item()


def _auxiliary(outputs: Any, hints: LossHints) -> float:
    value = outputs.get("aux_loss") if hints.auxiliary and isinstance(outputs, Mapping) else None
    return (
        hints.auxiliary * value.double().item()
        if isinstance(value, Tensor) and value.ndim == 0
        else 0.0
    )


def _groups(
    trained: Trained, prior: Reading | None, hints: LossHints
) -> Iterator[Iterator[Sequence[Reading]]]:
    """Readings to try, of each pair of outputs and labels, kind by kind.

    What one kind needs memory for is not tried where another has fitted.
    """
    outputs = [
        (path, one)
        for path, one in tensors_of(trained.outputs, trained.samples)
        if one.is_floating_point()
    ]
    outputs.sort(key=lambda item: "logits" not in item[0])
    batch = [
        (path, one)
        for path, one in tensors_of(trained.batch, trained.samples)
        if not one.is_complex()
    ]
    batch.sort(key=lambda item: not _label_like(item[0]))
    likely = Reading(outputs=None, target=(), kind=CLASSES) if prior is None else prior
    pairs = [(z, y) for y in batch for z in outputs]
    pairs.sort(key=lambda pair: pair[0][0] != likely.outputs or pair[1][0] != likely.target)
    for z, y in pairs:
        variants = sorted(
            _variants(z, y, likely, trained, hints),
            key=lambda one: (one.kind != likely.kind, one.kind != CLASSES),
        )
        yield (list(group) for _, group in groupby(variants, key=lambda one: one.kind))


def _of_graph(trained: Trained, prior: Reading | None) -> Iterator[Reading]:
    """Readings of a loss that comes without outputs, by what its graph has saved."""
    likely = prior is not None and prior.shift
    for path, one in (
        tensors_of(trained.batch, trained.samples) if trained.entropy is not None else ()
    ):
        if not one.is_floating_point():
            yield from (
                Reading(outputs=None, target=path, kind=CLASSES, shift=shift)
                for shift in (likely, not likely)
            )


def _label_like(path: Path) -> bool:
    return any(isinstance(part, str) and ("label" in part or "target" in part) for part in path)


def _variants(
    z: tuple[Path, Tensor],
    y: tuple[Path, Tensor],
    likely: Reading,
    trained: Trained,
    hints: LossHints,
) -> Iterator[Reading]:
    """The readings that the shapes and dtypes of one pair allow."""
    (outputs, out), (target, labels) = z, y
    base = Reading(outputs=outputs, target=target, kind=CLASSES)
    if not labels.is_floating_point():
        for last in (likely.classes_last, not likely.classes_last) if out.ndim > 2 else (True,):
            for shift in (likely.shift, not likely.shift):
                reading = replace(base, shift=shift, classes_last=last)
                try:
                    arranged = arrange(reading, out, labels)
                except LookupError:
                    continue
                for ignored in _ignored(arranged[1], arranged[0].shape[-1], trained, hints):
                    yield replace(reading, ignored=ignored)
                if arranged[1].ndim == 1 and not shift:
                    yield from (replace(reading, smoothing=share) for share in hints.smoothing)
                # Of more positions it would be huge
                if not shift and out.ndim == 2 and trained.entropy is None:
                    yield replace(reading, kind=BINARY)
    if out.ndim > 1 and out.shape == labels.shape and labels.is_floating_point():
        yield replace(base, kind=PROBABILITIES, classes_last=False)
        if out.ndim > 2:
            yield replace(base, kind=PROBABILITIES)
    if labels.is_floating_point() or labels.ndim >= out.ndim:  # else one sigmoid a class, as above
        yield replace(base, kind=BINARY)
    yield replace(base, kind=REGRESSION)


def _ignored(
    labels: Tensor, classes: int, trained: Trained, hints: LossHints
) -> Iterator[int | None]:
    """Classes that the loss may leave out: what is known of it, none, then the first (padding)."""
    entropy = trained.entropy
    known = hints.ignored if entropy is None else (entropy.ignored,)
    within = [index for index in known if 0 <= index < classes]
    yield from within
    yield None
    if 0 not in within and (labels == 0).any():
        yield 0
