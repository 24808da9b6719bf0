"""Reweighting in the batch: each lesson's weight by its own training loss, at no extra pass.

Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining,
ICLR 2025 (arXiv 2502.06733). There a batch's losses are brought to [-1, 1] by the least and the
largest of them, turned into a preference ``f(h)``, and weighted by ``exp(f / r)`` over its mean.
Here the bounds and the mean are those of the batch before, over all ranks: those of a batch's later
microbatches are not known when its first has to go backward, and so the weights depend neither on
microbatches nor on ranks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from composer import Algorithm, Event, State
from composer.loggers import Logger
from torch import Tensor
from torch import distributed as dist

from attent_stream.base.errors import ScoreError
from attent_stream.base.watch import collective
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.weighting import WeightedOutputs
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.trained import Trained
from attent_stream.score.build import build_scorer

# name -> h in [-1, 1] -> preference
STRATEGIES: dict[str, Callable[[Tensor], Tensor]] = {
    # Up to the middle, then all alike: what is hardest may be noise
    "linupper": lambda h: torch.clamp(h + 1, max=1.0),
    "quadratic": lambda h: 1 - h * h,  # the middle
    "extremes": lambda h: h.abs(),
}


@dataclass(frozen=True, kw_only=True)
class ReweightSettings:
    """How to weight.

    Args:
        strategy: A name in ``STRATEGIES``.
        r: Strength of the pull to equal weights, above 0: towards infinity all weights are 1.

    Raises:
        ValueError: An unknown strategy, an ``r`` that is not positive.
    """

    strategy: str
    r: float = 1.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"reweight must be one of {', '.join(STRATEGIES)} or null, got {self.strategy!r}"
            )
        number = isinstance(self.r, (int, float)) and not isinstance(self.r, bool)
        if not number or not 0 < self.r < math.inf:
            raise ValueError(f"reweight.r must be a positive number, got {self.r!r}")


class Reweighting:
    """Weights of one batch after the other.

    Args:
        settings: How.
    """

    def __init__(self, settings: ReweightSettings) -> None:
        self._settings = settings
        # Of the batch before: least and largest loss, mean of exp(f / r); float32 (3,)
        self._last: Tensor | None = None
        self._losses: list[Tensor] = []  # of this batch, a tensor a microbatch

    def begin_batch(self) -> None:
        """Before a batch's first forward, also where one that failed begins anew."""
        self._losses = []

    def factors(self, losses: Tensor) -> Tensor:
        """Weights of a microbatch.

        Args:
            losses: Float32 of shape (b,), detached.

        Returns:
            Float32 of shape (b,); 1 in a run's first batch, and where a loss is not finite.
        """
        self._losses.append(losses)
        if self._last is None:
            return torch.ones_like(losses)
        self._last = self._last.to(losses.device)  # a checkpoint's may be elsewhere
        weights = self._preference(losses, self._last[0], self._last[1]) / self._last[2]
        return torch.where(losses.isfinite() & self._last[0].isfinite(), weights, 1.0)

    def end_batch(self, size: int) -> None:
        """After its last; all ranks must come here together.

        Args:
            size: Samples of a full batch on each rank.
        """
        losses = torch.cat(self._losses)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            mine = torch.full((size,), math.nan, dtype=losses.dtype, device=losses.device)
            mine[: len(losses)] = losses
            losses = mine.new_empty(dist.get_world_size() * size)
            with collective("the reweighting of a batch"):
                dist.all_gather_into_tensor(losses, mine)
        finite = losses.isfinite()
        low = torch.where(finite, losses, math.inf).min()
        high = torch.where(finite, losses, -math.inf).max()
        weights = torch.where(finite, self._preference(losses, low, high), 0.0)
        mean = weights.sum() / finite.sum().clamp(min=1)
        # A batch without any finite loss, or without any spread, says nothing.
        made = torch.stack([low, high, mean])
        known = made.isfinite().all() & (high > low)
        unknown = made.new_tensor([-math.inf, math.inf, 1.0]) if self._last is None else self._last
        self._last = torch.where(known, made, unknown)

    def state(self) -> list[float] | None:
        """Plain numbers, None before the first batch."""
        return None if self._last is None else self._last.tolist()

    def load(self, state: list[float] | None) -> None:
        """Go on from ``state``'s."""
        self._last = None if state is None else torch.tensor(state, dtype=torch.float32)

    def _preference(self, losses: Tensor, low: Tensor, high: Tensor) -> Tensor:
        h = (2 * (losses - low) / (high - low) - 1).clamp(-1, 1).nan_to_num(0.0)
        return torch.exp(STRATEGIES[self._settings.strategy](h) / self._settings.r)


class Reweight(Algorithm):
    """Weights the lessons of each batch by their own training losses.

    Args:
        strategy: A name in ``STRATEGIES``.
        r: See ``ReweightSettings``.

    Raises:
        ValueError: See ``ReweightSettings``.
    """

    def __init__(self, strategy: str, r: float = 1.0) -> None:
        self._reweighting = Reweighting(ReweightSettings(strategy=strategy, r=r))
        self._loader: TeachingDataLoader | None = None
        self._seen = False  # this batch's first micro-batch
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.BEFORE_TRAIN_BATCH: self._before_train_batch,
            Event.BEFORE_FORWARD: self._before_forward,
            Event.AFTER_LOSS: self._after_loss,
            Event.BATCH_END: self._batch_end,
        }

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Do it."""
        self._events[event](state)

    def state_dict(self) -> dict[str, Any]:
        """The bounds of the batch before."""
        return {"bounds": self._reweighting.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state."""
        self._reweighting.load(state["bounds"])

    def _fit_start(self, state: State) -> None:
        loader = state.train_dataloader
        if not isinstance(loader, TeachingDataLoader):
            raise TypeError(f"reweight needs a TeachingDataLoader, got {type(loader).__name__}")
        if int(state.timestamp.batch) == 0:
            self._reweighting.load(None)
        self._loader, self._rows = loader, BatchForm.of(loader).rows
        self._outputs = WeightedOutputs(state.model, self._rows)
        self._losses = build_scorer("loss", state.model, head=None)
        self._check = LossCheck(state.model)

    def _before_train_batch(self, state: State) -> None:
        self._reweighting.begin_batch()
        self._seen = False
        epoch = self._loader.epoch
        ones = None if epoch is None else torch.ones(len(epoch.lesson[0]))
        self._outputs.begin_batch(None if ones is None else state.device.tensor_to_device(ones))

    def _before_forward(self, state: State) -> None:
        self._outputs.begin_forward()

    def _after_loss(self, state: State) -> None:
        if self._loader.epoch is None:
            return
        self._look(state)
        losses = self._losses.read_by(self._check.reading, self._rows)
        found = losses.from_outputs(state.model, state.outputs, state.batch)
        self._outputs.read_by(self._check.reading)
        self._outputs.forward_done(state.outputs, state.batch, self._reweighting.factors(found))
        self._outputs.loss_done(state.loss)

    def _look(self, state: State) -> None:
        """Hold the reading of outputs against the loss, on a batch's first micro-batch; all ranks
        together.
        """
        if self._seen:
            return
        self._seen = True
        batch, outputs, loss = state.batch, state.outputs, state.loss
        self._check.look(lambda: Trained.of(outputs, batch, loss, self._rows(batch)), keep=True)
        reason = self._check.reason
        if reason is None and self._check.reading.outputs is None:
            reason = "its forward returns a loss and no outputs for each sample"
        if reason is not None:
            raise ScoreError(
                f"reweight needs each sample's loss, and {reason}: leave reweight away"
            )

    def _batch_end(self, state: State) -> None:
        if self._loader.epoch is not None:
            self._reweighting.end_batch(self._loader.batch_size * self._loader.epoch.units)
