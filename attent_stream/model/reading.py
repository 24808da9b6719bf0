"""Readings: which outputs and which labels a model's loss compares, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.model.reference import IGNORED, soft_token_scores, token_scores

# Kinds of targets: class indices, class probabilities, independent yes/no outputs, numbers
CLASSES, PROBABILITIES, BINARY, REGRESSION = "classes", "probabilities", "binary", "regression"

Path = tuple[str | int, ...]  # keys and indices that lead to a tensor
_MAX_DEPTH = 3  # of nested mappings and sequences
_MAX_TENSORS = 12  # in outputs or a batch


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to pair outputs with labels.

    Args:
        outputs: Path to the tensor in the model's outputs. None: the model returns no outputs, and
            the log-probabilities that its loss has saved are used.
        target: Path to the labels in the batch.
        kind: One of the four kinds of targets.
        shift: The output at a position predicts the next position's label (causal language models).
        ignored: A class that the loss ignores (``ignore_index``), or None. Labels out of range are
            always ignored.
        classes_last: The classes are the last dimension of the outputs, else dimension 1.
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
        """Outputs and target in the form that scores take; see ``arrange``.

        Raises:
            LookupError: A path leads to no tensor, or the shapes do not match.
        """
        return arrange(self, at_path(outputs, self.outputs or ()), at_path(batch, self.target))

    def describe(self) -> str:
        """Describe the reading in a few words, for logs."""
        where = {None: "its loss", (): "its outputs"}.get(
            self.outputs, f"outputs {named(self.outputs or ())}"
        )
        shift = " shifted by one" if self.shift else ""
        return f"{where} against {named(self.target) or 'the batch'}{shift} as {self.kind}"


def named(path: Path) -> str:
    """Write a path, such as ``targets[0]``."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(keys).lstrip(".")


def at_path(value: Any, path: Path) -> Tensor:
    """Get the tensor at a path; raise LookupError where there is none."""
    for key in path:
        fields = fields_of(value)
        if key not in fields:
            raise LookupError(f"nothing at {named(path)}")
        value = fields[key]
    if not isinstance(value, Tensor):
        raise LookupError(f"no tensor at {named(path)}")
    return value


def fields_of(value: Any) -> dict[str | int, Any]:
    """Items of a mapping, a sequence (its first ones) or a dataclass by key, index or name."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if isinstance(key, (str, int))}
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value[:_MAX_TENSORS]))
    if is_dataclass(value) and not isinstance(value, type):
        return dict(vars(value))
    return {}


def tensors_of(value: Any, samples: int) -> list[tuple[Path, Tensor]]:
    """Find the tensors with ``samples`` rows in outputs or a batch, outermost first."""
    found: list[tuple[Path, Tensor]] = []
    front: list[tuple[Path, Any]] = [((), value)]
    for _ in range(_MAX_DEPTH + 1):
        behind: list[tuple[Path, Any]] = []
        for path, one in front:
            if isinstance(one, Tensor):
                if one.ndim and len(one) == samples:
                    found.append((path, one))
            else:
                behind += [((*path, key), item) for key, item in fields_of(one).items()]
        front = behind
    return found[:_MAX_TENSORS]


def arrange(reading: Reading, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bring outputs and target into the form that scores take.

    Args:
        reading: Says how they belong together. Its paths are not used.
        z: Outputs, float of shape (B, ...).
        y: Target, shape (B, ...).

    Returns:
        For class indices: float (B, ..., C), and int64 (B, ...) with ``-100`` where a label is
        ignored. For other kinds: two tensors of the same shape, with the classes of probabilities
        last.

    Raises:
        LookupError: The shapes do not match.
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
    """Move labels of shape (B, T, ...) one position to the left, with ``-100`` at the end."""
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)


def countable(labels: Tensor, classes: int, ignored: int | None = None) -> Tensor:
    """Replace labels by ``-100`` that are out of [0, classes) or equal to ``ignored``."""
    out = (labels < 0) | (labels >= classes)
    out = out if ignored is None else out | (labels == ignored)
    return labels.masked_fill(out, IGNORED)


def one_hot(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Turn labels into probabilities of shape (..., C).

    Without smoothing, they are all 0 where a label is ignored.

    Args:
        labels: Class indices, int64, ``-100`` where ignored.
        classes: Number of classes, C.
        smoothing: The share of each label that is spread over all classes.
    """
    hot = F.one_hot(labels.clamp(min=0), classes) * (labels != IGNORED)[..., None]
    return hot if smoothing == 0 else (1 - smoothing) * hot + smoothing / classes


def position_losses(reading: Reading, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss of every position (or output) of every sample.

    Args:
        reading: The reading.
        z: Outputs, as ``arrange`` returns them.
        y: Target, as ``arrange`` returns it.

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
    """Shape without dimensions of size 1 after the first."""
    return tuple(tensor.shape[:1]) + tuple(size for size in tensor.shape[1:] if size != 1)
