"""A job: a small model, its data, and what its scores must be by brute force in float64."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.models import ComposerModel
from streaming import MDSWriter
from torch import Tensor
from torch.nn import functional as F

COUNT, BATCH = 64, 4  # samples of a data set, and of a batch
LENGTH, VOCAB = 12, 64  # of a text
CLASSES, SIDE = 5, 8  # of images
IGNORED = -100
SCORED, PLAIN = "scored", "plain"

Brute = Callable[[ComposerModel, Any], Tensor]  # (model, batch), both of float64 -> (B,)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stranger trains.

    Args:
        name: In plain words.
        model: Builds it, the same each time.
        write: Writes its data set into a folder.
        losses: What a sample's own loss is, from the model in training mode; None: it has none.
        residuals: Likewise how far the model's answer is from the target; None: there is no such.
        collate: None: torch's default.
        expected: ``scored``: scores must be made. ``plain``: they need not be.
        spec: What Composer must be told of its batches, as arguments of ``DataSpec``.
        times: A loss score may also be so many times ``losses``: a constant changes no choice.
        trainer: Arguments of Composer's Trainer.
        close: How far a score may be from brute force, as a share of its size.
    """

    name: str
    model: Callable[[], ComposerModel]
    write: Callable[[Path], None]
    losses: Brute | None
    residuals: Brute | None = None
    collate: Callable[[list], Any] | None = None
    expected: str = PLAIN
    spec: Mapping[str, Callable] | None = None
    times: float = 1.0
    trainer: Mapping[str, Any] = field(default_factory=dict)
    close: float = 1e-4

    def brute(self, score: str) -> Brute | None:
        """What a score of this name must be equal to."""
        return {"loss": self.losses, "residual": self.residuals}.get(score)


class Twin:
    """A float64 copy of a model that is being trained."""

    def __init__(self, model: ComposerModel) -> None:
        self._model = copy.deepcopy(model).double().train()

    def __call__(self, brute: Brute, model: ComposerModel, batch: Any) -> np.ndarray:
        """``brute`` of a batch, with the model's weights as they are now."""
        with torch.no_grad(), _in_float64():
            for mine, other in (
                *zip(self._model.parameters(), model.parameters(), strict=True),
                *zip(self._model.buffers(), model.buffers(), strict=True),
            ):
                mine.copy_(other)
            return brute(self._model, doubled(batch)).detach().numpy()


@contextlib.contextmanager
def _in_float64() -> Iterator[None]:
    """Tensors that a model makes itself, such as masks, are float64 too."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def doubled(batch: Any) -> Any:
    """A copy of a batch whose floating-point tensors are float64."""
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch.clone()
    if isinstance(batch, Mapping):
        return {key: doubled(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(doubled(value) for value in batch)
    return batch


def alone(model: ComposerModel, batch: Any) -> Tensor:
    """What the model's own loss is for each sample alone: the oracle of the oracles."""
    losses = []
    for index in range(BATCH):
        one = part(batch, index)
        losses.append(model.loss(model.forward(one), one))
    return torch.stack(losses)


def part(batch: Any, index: int) -> Any:
    """One sample of a batch, as a batch."""
    if isinstance(batch, Mapping):
        return {key: part(value, index) for key, value in batch.items()}
    if isinstance(batch, tuple) or (
        isinstance(batch, list) and isinstance(batch[0], Tensor) and len(batch) == 2
    ):
        return type(batch)(part(value, index) for value in batch)
    return batch[index : index + 1]


# What a sample's loss and residual are, of a reading: (model, batch) -> (outputs, target), where
# outputs have their classes last.


def class_scores(reading: Callable, ignored: int = IGNORED, **options: Any) -> dict[str, Brute]:
    """Of class numbers: means over a sample's valid positions; ``F.cross_entropy``'s options."""

    def losses(model, batch):
        logits, target = reading(model, batch)
        flat = F.cross_entropy(
            logits.flatten(0, -2),
            target.flatten(),
            ignore_index=ignored,
            reduction="none",
            **doubled(options),
        )
        return _mean(flat.reshape(target.shape), target != ignored)

    def residuals(model, batch):
        logits, target = reading(model, batch)
        valid = target != ignored
        right = F.one_hot(torch.where(valid, target, 0), logits.shape[-1])
        return _mean((logits.softmax(-1) - right).square().sum(-1), valid).sqrt()

    return {"losses": losses, "residuals": residuals}


def share_scores(reading: Callable) -> dict[str, Brute]:
    """Of class probabilities."""

    def losses(model, batch):
        logits, target = reading(model, batch)
        return -(target * logits.log_softmax(-1)).sum(-1)

    def residuals(model, batch):
        logits, target = reading(model, batch)
        return (logits.softmax(-1) - target).norm(dim=-1)

    return {"losses": losses, "residuals": residuals}


def yes_no_scores(reading: Callable) -> dict[str, Brute]:
    """Of independent yes/no outputs: means over them."""

    def losses(model, batch):
        logits, target = reading(model, batch)
        return -(target * F.logsigmoid(logits) + (1 - target) * F.logsigmoid(-logits)).mean(-1)

    def residuals(model, batch):
        logits, target = reading(model, batch)
        return (logits.sigmoid() - target).square().mean(-1).sqrt()

    return {"losses": losses, "residuals": residuals}


def number_scores(
    reading: Callable, loss: Callable[[Tensor], Tensor] = torch.square
) -> dict[str, Brute]:
    """Of numbers: means over them of ``loss`` of the difference."""

    def losses(model, batch):
        output, target = reading(model, batch)
        return loss(output - target).mean(-1)

    def residuals(model, batch):
        output, target = reading(model, batch)
        return (output - target).square().mean(-1).sqrt()

    return {"losses": losses, "residuals": residuals}


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    values, valid = values.reshape(len(values), -1), valid.reshape(len(valid), -1)
    return torch.where(valid, values, 0).sum(1) / valid.sum(1)


# Data.


def written(
    columns: dict[str, str], samples: Callable[[np.random.Generator], dict]
) -> Callable[[Path], None]:
    """Writes a data set of ``COUNT`` samples, each drawn by ``samples``."""

    def write(folder: Path) -> None:
        rng = np.random.default_rng(11)
        with MDSWriter(out=str(folder), columns=columns, size_limit=1 << 16) as writer:
            for _ in range(COUNT):
                writer.write(samples(rng))

    return write


def walk(rng: np.random.Generator, length: int = LENGTH) -> np.ndarray:
    """A text that a model can learn something of."""
    return np.cumsum(rng.integers(1, 4, length)) % VOCAB


def picture(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """An image that its class brightens, and the class."""
    label = int(rng.integers(CLASSES))
    image = rng.normal(0, 1, (3, SIDE, SIDE)) + (label - 2) * 0.5
    return image.astype(np.float32), label


def pairs(first: str, second: str) -> Callable[[list], tuple[Tensor, Tensor]]:
    """A collate function: (input, target) of two columns."""

    def collate(samples: list) -> tuple[Tensor, Tensor]:
        return tuple(
            torch.from_numpy(np.stack([np.asarray(sample[name]) for sample in samples]))
            for name in (first, second)
        )

    return collate
