"""A first guess of how outputs are read, made before the model's loss has confirmed a reading."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attent_stream.model.reading import (
    BINARY,
    CLASSES,
    PROBABILITIES,
    REGRESSION,
    Path,
    Reading,
    squeezed,
)
from attent_stream.model.traits import Traits


def target_path(batch: Any) -> Path:
    """Where a batch usually has its labels: ``labels`` of a mapping, else the second item."""
    return ("labels",) if isinstance(batch, Mapping) else (1,)


def logits_path(outputs: Any) -> Path | None:
    """Where outputs usually have their logits. None where the form of the outputs is unknown.

    Logits are a tensor, ``logits`` of a mapping, or the first item of a tuple after its loss.
    """
    if isinstance(outputs, Tensor):
        return ()
    if isinstance(outputs, Mapping):
        return ("logits",) if "logits" in outputs else None
    if isinstance(outputs, (tuple, list)) and outputs:
        first = outputs[0]
        return (1,) if isinstance(first, Tensor) and first.ndim == 0 and len(outputs) > 1 else (0,)
    return None


def first_reading(
    traits: Traits, z: Tensor | None, y: Tensor, *, outputs: Path, target: Path
) -> Reading:
    """Guess a reading from the model's class, the shapes, and the form of the batch.

    Args:
        traits: Traits of the model.
        z: The logits, shape (B, ...), or None before the forward.
        y: The target, shape (B, ...).
        outputs: Path to ``z``.
        target: Path to ``y``.
    """
    in_pair = target == (1,)
    # In a pair, as torch's losses take it, the classes of (B, C, ...) are dimension 1.
    second = in_pair and (z is None or z.shape[:1] + z.shape[2:] == y.shape)
    kind = _kind(traits, z, y)
    return Reading(
        outputs=outputs,
        target=target,
        kind=kind,
        shift=traits.shift_labels and not y.is_floating_point() and y.ndim >= 2,
        classes_last=not (second or kind == PROBABILITIES),
    )


def _kind(traits: Traits, z: Tensor | None, y: Tensor) -> str:
    if z is not None and z.shape == y.shape:
        return traits.dense
    if z is not None and squeezed(z) == squeezed(y):  # (B, 1) for (B,)
        return BINARY if traits.dense == BINARY else REGRESSION
    one_sigmoid_per_class = traits.forward_args is None and traits.dense == BINARY
    return traits.dense if y.is_floating_point() or one_sigmoid_per_class else CLASSES
