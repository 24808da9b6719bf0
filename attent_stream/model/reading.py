"""How a model's loss is read: which of its outputs are held against which part of a batch, and as
what.
"""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.model.reference import IGNORED, soft_token_scores, token_scores

# What the target of a model is: class indices, class probabilities, independent yes/no outputs, or
# numbers.
CLASSES, PROBABILITIES, BINARY, REGRESSION = "classes", "probabilities", "binary", "regression"

Path = tuple[str | int, ...]  # keys and indices that lead to a tensor
_DEPTH = 3  # of nested mappings and sequences that are looked into
_MOST = 12  # tensors of outputs, or of a batch, that are looked at


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to pair outputs with labels.

    Args:
        outputs: Path to the tensor in the model's outputs; None: the log-probabilities that the
            loss has saved are the only outputs there are.
        target: Path to the labels in the batch.
        kind: What the target is, one of the four kinds.
        shift: The output at a position predicts the next position's label (causal language models).
        ignored: A class that the loss leaves out (``ignore_index``), or None. Labels out of the
            classes' range are always left out.
        classes_last: The classes are the outputs' last dimension; else they are dimension 1.
        smoothing: The share of each label that the loss spreads over all classes (label smoothing,
            Szegedy et al., 2016).
    """

    outputs: Path | None
    target: Path
    kind: str
    shift: bool = False
    ignored: int | None = None
    classes_last: bool = True
    smoothing: float = 0.0

    def arranged(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        """Outputs and target in the form that the scores of ``kind`` take; see ``arrange``.

        Raises:
            LookupError: The path leads nowhere, or the shapes do not fit.
        """
        return arrange(self, at_path(outputs, self.outputs or ()), at_path(batch, self.target))

    def describe(self) -> str:
        """In a few words, for a log."""
        where = {None: "its loss", (): "its outputs"}.get(
            self.outputs, f"outputs {named(self.outputs or ())}"
        )
        shift = " shifted by one" if self.shift else ""
        return f"{where} against {named(self.target) or 'the batch'}{shift} as {self.kind}"


def named(path: Path) -> str:
    """A path in words: ``targets[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(
        "."
    )


def at_path(value: Any, path: Path) -> Tensor:
    """The tensor that a path leads to; raises LookupError where there is none."""
    for part in path:
        fields = fields_of(value)
        if part not in fields:
            raise LookupError(f"nothing at {named(path)}")
        value = fields[part]
    if not isinstance(value, Tensor):
        raise LookupError(f"no tensor at {named(path)}")
    return value


def fields_of(value: Any) -> dict[str | int, Any]:
    """What a mapping, a sequence (its first items) or an instance of a dataclass holds, by key,
    index or name.
    """
    if isinstance(value, Mapping):
        return {key: part for key, part in value.items() if isinstance(key, (str, int))}
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value[:_MOST]))
    if is_dataclass(value) and not isinstance(value, type):
        return dict(vars(value))
    return {}


def tensors_of(value: Any, samples: int) -> list[tuple[Path, Tensor]]:
    """The tensors with ``samples`` rows in outputs or a batch, outermost first, with their
    paths.
    """
    found: list[tuple[Path, Tensor]] = []
    front: list[tuple[Path, Any]] = [((), value)]
    for _ in range(_DEPTH + 1):
        behind: list[tuple[Path, Any]] = []
        for path, one in front:
            if isinstance(one, Tensor):
                if one.ndim and len(one) == samples:
                    found.append((path, one))
            else:
                behind += [((*path, key), part) for key, part in fields_of(one).items()]
        front = behind
    return found[:_MOST]


def arrange(reading: Reading, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bring one tensor of outputs and its target into the form that the scores take.

    Args:
        reading: Says how they belong together; its paths are not looked at.
        z: Outputs, float of shape (B, ...).
        y: Target, shape (B, ...).

    Returns:
        Of class indices: float (B, ..., C) and int64 (B, ...), ``-100`` where a label does not
        count. Else two tensors of one shape, of probabilities with the classes last.

    Raises:
        LookupError: The shapes do not fit.
    """
    fit = squeezed(z) == squeezed(y)
    one_sigmoid_per_class = y.ndim < z.ndim and not y.is_floating_point() and not fit
    if reading.kind == CLASSES or (reading.kind == BINARY and one_sigmoid_per_class):
        z, y = _with_classes(reading, z, y)
        return (z, y) if reading.kind == CLASSES else (z, one_hot(y, z.shape[-1]))
    if not fit:
        raise LookupError(
            f"outputs of shape {tuple(z.shape)} for a target of shape {tuple(y.shape)}"
        )
    if reading.kind == PROBABILITIES:
        if z.ndim < 2 or z.shape != y.shape:
            raise LookupError("no classes")
        return (z, y) if reading.classes_last else (z.movedim(1, -1), y.movedim(1, -1))
    return z.reshape(y.shape), y


def _with_classes(reading: Reading, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    while y.ndim >= z.ndim and y.ndim > 1 and y.shape[-1] == 1:
        y = y[..., 0]  # integer labels of shape (B, 1)
    if z.ndim < 2 or y.is_floating_point() or y.dtype == torch.bool:
        raise LookupError("no class indices")
    z = z if reading.classes_last else z.movedim(1, -1)
    y = y.long()
    if reading.shift:
        if y.ndim < 2:
            raise LookupError("no positions to shift by")
        y = shifted(y) if y.shape[1] == z.shape[1] else y[:, 1:]
    if z.shape[:-1] != y.shape:
        raise LookupError(f"outputs of shape {tuple(z.shape)} for labels of shape {tuple(y.shape)}")
    return z, countable(y, z.shape[-1], reading.ignored)


def shifted(labels: Tensor) -> Tensor:
    """Labels of shape (B, T, ...) of the next position, ``-100`` at the last."""
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)


def countable(labels: Tensor, classes: int, ignored: int | None = None) -> Tensor:
    """Labels with ``-100`` where they do not count: out of [0, classes), or ``ignored``."""
    out = (labels < 0) | (labels >= classes)
    out = out if ignored is None else out | (labels == ignored)
    return labels.masked_fill(out, IGNORED)


def one_hot(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Labels as probabilities of shape (..., C), all 0 where a label does not count.

    Args:
        labels: Class indices, int64, ``-100`` where they do not count.
        classes: How many, C.
        smoothing: The share of each that goes to all classes alike.
    """
    hot = F.one_hot(labels.clamp(min=0), classes) * (labels != IGNORED)[..., None]
    return hot if smoothing == 0 else (1 - smoothing) * hot + smoothing / classes


def position_losses(reading: Reading, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of every position (or output) of every sample.

    Args:
        reading: Of the outputs.
        z: As ``arrange`` gives it.
        y: As ``arrange`` gives it.

    Returns:
        ``(losses, valid)``: float32 or float64, and bool, both of shape (B, n).
    """
    kind = reading.kind
    if kind == CLASSES:
        losses = (
            soft_token_scores(z, one_hot(y, z.shape[-1], reading.smoothing))
            if reading.smoothing
            else token_scores(z, y)
        )
        return losses[0].reshape(len(y), -1), (y != IGNORED).reshape(len(y), -1)
    wide = torch.promote_types(z.dtype, torch.float32)
    if kind == PROBABILITIES:
        losses = soft_token_scores(z, y)[0]
    elif kind == BINARY:
        losses = F.binary_cross_entropy_with_logits(z.to(wide), y.to(wide), reduction="none")
    else:
        losses = (z.to(wide) - y.to(wide)).square()
    losses = losses.reshape(len(y), -1)
    return losses, torch.ones_like(losses, dtype=torch.bool)


def squeezed(tensor: Tensor) -> tuple[int, ...]:
    """Shape without dimensions of size 1 behind the first."""
    return tuple(tensor.shape[:1]) + tuple(size for size in tensor.shape[1:] if size != 1)
