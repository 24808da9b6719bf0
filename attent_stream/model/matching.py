"""Search for the readings that reproduce a model's loss, so that scores match what is trained on.

A model's labels may be shifted or not, its target may be classes or numbers, and its outputs may
hold several heads. Nothing is assumed: the loss under a reading must equal the model's own loss.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    position_losses,
    tensors_of,
)
from attent_stream.model.reference import IGNORED
from attent_stream.model.trained import Trained, operands, total_loss

_RTOL, _ATOL = 2e-4, 1e-5  # for a loss in float32
_RTOL_HALF = 1e-2  # for a loss in bfloat16 or float16


def matching(trained: Trained, prior: Reading | None, hints: LossHints) -> list[Reading]:
    """Find the readings that reproduce the loss, most likely first.

    Args:
        trained: A forward with its loss.
        prior: The reading that the model's class suggests, or None.
        hints: Settings of the model's loss.

    Returns:
        All readings that fit, of every pair of outputs and labels, but of one kind per pair. Later
        batches may tell them apart. Empty where none fits.
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
    """Whether a forward cannot test readings: its loss is not finite, or it has no valid label."""
    if trained.total is None:
        return False
    unlabelled = trained.labels is not None and not trained.labels.numel()
    return unlabelled or not math.isfinite(trained.total)


def fits(reading: Reading, trained: Trained, hints: LossHints) -> bool:
    """Whether a reading reproduces the loss of a forward.

    Where the loss's graph holds labels, the reading's must be the same, in the same order.
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
        wide = total_loss(trained.loss).dtype in (torch.float32, torch.float64)
        rtol = _RTOL if wide else _RTOL_HALF
        return any(
            math.isclose(value, mean, rel_tol=rtol, abs_tol=_ATOL)
            for mean in _means(reading.kind, losses, valid)
        )


def _means(kind: str, losses: Tensor, valid: Tensor) -> Iterator[float]:
    """Reductions of the losses of positions, (B, n), that a model's loss may be."""
    losses = torch.where(valid, losses, 0.0).double()
    total = losses.sum()
    yield (total / valid.sum()).item()
    has = valid.any(dim=1)
    yield (losses.sum(dim=1)[has] / valid.sum(dim=1)[has]).mean().item()
    # A sample's sum over its positions is not its mean, unless all samples have as many positions.
    if kind != CLASSES or losses.shape[1] == 1:
        yield (total / len(losses)).item()
        yield total.item()


def _auxiliary(outputs: Any, hints: LossHints) -> float:
    value = outputs.get("aux_loss") if hints.auxiliary and isinstance(outputs, Mapping) else None
    scalar = isinstance(value, Tensor) and value.ndim == 0
    return hints.auxiliary * value.double().item() if scalar else 0.0


def _groups(
    trained: Trained, prior: Reading | None, hints: LossHints
) -> Iterator[Iterator[Sequence[Reading]]]:
    """Readings to try, for each pair of outputs and labels, kind by kind.

    Some kinds need much memory. They are last, and not tried where another kind fits.
    """
    outputs = tensors_of(trained.outputs, trained.samples)
    outputs = [(path, one) for path, one in outputs if one.is_floating_point()]
    outputs.sort(key=lambda item: "logits" not in item[0])
    batch = tensors_of(trained.batch, trained.samples)
    batch = [(path, one) for path, one in batch if not one.is_complex()]
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
    """Readings of the tensors in the loss's graph, for a model that returns no outputs."""
    if trained.entropy is None:
        return
    likely = prior is not None and prior.shift
    for path, one in tensors_of(trained.batch, trained.samples):
        if not one.is_floating_point():
            for shift in (likely, not likely):
                yield Reading(outputs=None, target=path, kind=CLASSES, shift=shift)


def _label_like(path: Path) -> bool:
    return any(isinstance(key, str) and ("label" in key or "target" in key) for key in path)


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
                # One-hot targets of many positions would be huge.
                if not shift and out.ndim == 2 and trained.entropy is None:
                    yield replace(reading, kind=BINARY)
    if out.ndim > 1 and out.shape == labels.shape and labels.is_floating_point():
        yield replace(base, kind=PROBABILITIES, classes_last=False)
        if out.ndim > 2:
            yield replace(base, kind=PROBABILITIES)
    if labels.is_floating_point() or labels.ndim >= out.ndim:  # else one sigmoid per class, above
        yield replace(base, kind=BINARY)
    yield replace(base, kind=REGRESSION)


def _ignored(
    labels: Tensor, classes: int, trained: Trained, hints: LossHints
) -> Iterator[int | None]:
    """Classes that the loss may ignore: the known ones, none, then class 0 (padding)."""
    entropy = trained.entropy
    known = hints.ignored if entropy is None else (entropy.ignored,)
    within = [index for index in known if 0 <= index < classes]
    yield from within
    yield None
    if 0 not in within and (labels == 0).any():
        yield 0
