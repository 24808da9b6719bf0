"""The direction of the output weight that lowers the target's loss, anew for each window."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module
from torch.optim import Optimizer

from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.fit.open_target import OpenTarget, check_tokens
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.score.alignment import Direction, head_alignments, head_gradient, low_rank
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.scores import Score

log = logging.getLogger(__name__)

_SAMPLES = 32  # of the target, forwarded for each window
_KEPT = 0.5  # share of the running mean that a refresh leaves
_DAMPING = 0.1  # added to Adam's roots of second moments, in their means: rare words have few


class AlignedTarget:
    """Scores samples by their alignment with the target.

    ``score`` is computed at the output head. Between ``refresh``'s forwards it is a sample's
    alignment; in them it takes note of the target's gradient.

    Args:
        model: The learner, wrapped as in training.
        target: The target.
        loader: The train loader, whose collate function makes batches of the target's samples.
        seed: Seeds which of the target's samples are forwarded for a window.
    """

    def __init__(
        self, model: Module, target: OpenTarget, loader: TeachingDataLoader, *, seed: int
    ) -> None:
        self._model, self._target, self._loader, self._seed = model, target, loader, seed
        # FSDP2 puts another tensor into the module's place in forwards; optimizers know this one.
        self._weight = _output_weight(model)
        self._warned = False
        self._direction: Direction | None = None
        self._collects = False
        # Gradient and samples of each call of the head in a forward; None outside
        self._calls: list[tuple[Tensor, int]] = []
        self.score = Score(head=self._at_head, name="alignment")

    @property
    def ready(self) -> bool:
        """Whether the target was forwarded."""
        return self._direction is not None

    def drawn(self, window: tuple[int, int], size: int) -> list[Any]:
        """Collated batches of the target's samples for a window, the same on all ranks and after a
        resume.

        Args:
            window: Its epoch and index.
            size: Samples of a batch.
        """
        rng, samples = np.random.default_rng([self._seed, *window]), self._target.samples
        shown, given = samples.shown, self._target.settings.streams
        weights = np.array([s.weight or len(ids) for s, ids in zip(given, shown, strict=True)])
        streams = rng.choice(len(shown), _SAMPLES, p=weights / weights.sum())
        ids = np.array([rng.choice(shown[stream]) for stream in streams])
        batches = samples.batches(ids, self._loader.collate, size=size)
        for batch in batches:
            check_tokens(batch, self._model)
        return batches

    def refresh(
        self, batches: Sequence[Any], forward: Callable[[Any], Any], optimizers: Sequence[Optimizer]
    ) -> None:
        """Forward batches of the target with the model's weights of now.

        Every rank forwards the same batches, so that all have the same direction.

        Args:
            batches: Each is one forward.
            forward: Scores a batch by ``score``.
            optimizers: The Trainer's. Adam's second moments of the output weight are used where
                they are whole on this rank.
        """
        total, samples = None, 0
        self._collects = True
        try:
            for batch in batches:
                self._calls = []
                rows = len(forward(batch))
                for gradient, count in _of_last(self._calls, rows):
                    total = count * gradient + (0 if total is None else total)
                    samples += count
        finally:
            self._collects, self._calls = False, []
        if total is None or not bool(torch.isfinite(total).all()):
            return  # the direction before is as good as any
        found = total / samples
        moments = None if self._weight is None else _second_moments(self._weight, optimizers)
        if moments is not None and moments.shape != found.shape and not self._warned:
            self._warned = True
            log.warning(
                "score: alignment leaves the optimizer's second moments out: the output weight "
                "has shape %s, and this rank has moments of shape %s (FSDP1 shards them so).",
                tuple(found.shape),
                tuple(moments.shape),
            )
        scale = None if moments is None else _adam_scale(moments, found.shape)
        found = found if scale is None else found * scale.to(found)
        found = found / found.norm().clamp(min=1e-30)
        if self._direction is not None:
            before = self._direction.left.to(found) @ self._direction.right.to(found)
            found = _KEPT * before + (1 - _KEPT) * found
        self._direction = low_rank(found)

    def state_dict(self) -> dict[str, Tensor] | None:
        """What a checkpoint needs."""
        if self._direction is None:
            return None
        return {name: value.cpu() for name, value in vars(self._direction).items()}

    def load_state_dict(self, state: Mapping[str, Tensor] | None) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: It is of another model.
        """
        if state is None or "left" not in state:  # of another score
            return
        left, right = (torch.as_tensor(state[name]) for name in ("left", "right"))
        classes = find_head(self._model).classes
        if left.ndim != 2 or right.ndim != 2 or left.shape != (classes, right.shape[0]):
            raise ValueError(
                f"expected the checkpoint's direction of the target to have {classes} classes, got "
                f"shapes {tuple(left.shape)} and {tuple(right.shape)}: resume the run's own model"
            )
        self._direction = Direction(left=left, right=right)

    def _at_head(self, head: HeadInputs) -> Tensor:
        if self._collects:
            self._calls.append((head_gradient(head), len(head.hidden)))
            return torch.zeros(len(head.hidden), device=head.hidden.device)
        if self._direction is None:
            return torch.zeros(len(head.hidden), device=head.hidden.device)
        return head_alignments(head, self._direction).float()


def _of_last(calls: list[tuple[Tensor, int]], rows: int) -> list[tuple[Tensor, int]]:
    """The last calls that have so many samples: a forward that failed was made again."""
    found = []
    for gradient, count in reversed(calls):
        if rows <= 0:
            break
        found.append((gradient, count))
        rows -= count
    return found


def _output_weight(model: Module) -> Tensor | None:
    try:
        return find_head(model).module.weight
    except HeadError:
        return None


def _second_moments(weight: Tensor, optimizers: Sequence[Optimizer]) -> Tensor | None:
    """Adam's second moments of a parameter, gathered over ranks where they are a DTensor. None for
    other optimizers, and before the first step. All ranks must call this together.
    """
    for optimizer in optimizers:
        moments = optimizer.state.get(weight, {}).get("exp_avg_sq")
        if isinstance(moments, Tensor):
            return moments.full_tensor() if isinstance(moments, DTensor) else moments
    return None


def _adam_scale(moments: Tensor, shape: torch.Size) -> Tensor | None:
    """``1 / (sqrt(v) + damping)`` for second moments v, over its mean. None for another shape."""
    if moments.shape != shape:
        return None
    roots = moments.float().sqrt()
    mean = roots.mean()
    return mean / (roots + _DAMPING * mean) if float(mean) > 0 else None
