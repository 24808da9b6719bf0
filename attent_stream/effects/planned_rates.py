"""Learning rates over epochs, planned for the batches that taught epochs have."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from composer import State, Time, TimeUnit
from torch.optim.lr_scheduler import LambdaLR

from attent_stream.data.dataloader import TeachingDataLoader

Rate = Callable[[int], float]


class PlannedRates:
    """While it is attached, Composer's schedulers of a run in epochs take it for as long as it is
    expected to be.

    They take all epochs for as long as the current one: with a first epoch on everything and two
    halves, a decay over ``3ep`` would be over behind the second, and the third trained at no rate
    at all. A share of training (``dur``) is exact here, an epoch (``ep``) their mean.

    Attributes:
        batches: Of the whole training, or None to leave the schedulers as they are.
    """

    def __init__(self) -> None:
        self.batches: int | None = None
        self._duration: Time | None = None  # of the run that it is attached to
        self._attached: list[tuple[LambdaLR, list[Rate]]] = []

    def attach(self, state: State, loader: TeachingDataLoader) -> None:
        """Begin with the schedulers of a run whose duration is in epochs; else do nothing."""
        self.detach()
        self._duration = state.max_duration
        if state.max_duration is None or state.max_duration.unit != TimeUnit.EPOCH:
            return
        for scheduler in state.schedulers:
            # What Composer makes of its own; an object's own state would be lost from checkpoints.
            if isinstance(scheduler, LambdaLR) and all(
                isinstance(rate, FunctionType) for rate in scheduler.lr_lambdas
            ):
                self._attached.append((scheduler, scheduler.lr_lambdas))
                scheduler.lr_lambdas = [
                    self._planned(rate, state, loader) for rate in scheduler.lr_lambdas
                ]

    def detach(self) -> None:
        """Leave the schedulers as they were, and plan nothing."""
        for scheduler, rates in self._attached:
            scheduler.lr_lambdas = rates
        self._attached, self.batches = [], None

    def state_dict(self) -> dict[str, Any] | None:
        """What is planned and for which duration, or None."""
        return (
            None if self.batches is None else {"batches": self.batches, "over": str(self._duration)}
        )

    def load_state_dict(self, planned: dict[str, Any] | None) -> None:
        """Go on with what was planned before a resume, unless it was for another duration or
        nothing is planned now.
        """
        if planned and self.batches is not None and planned["over"] == str(self._duration):
            self.batches = planned["batches"]

    def _planned(self, rate: Rate, state: State, loader: TeachingDataLoader) -> Rate:
        def planned(step: int) -> float:
            if self.batches is None or state.dataloader_len is None:
                return rate(step)
            said, length, duration = len(loader), state.dataloader_len, state.max_duration
            # Up, or a decay over all epochs would be over before; the loader too, or Composer would
            # not believe more than it says.
            state.dataloader_len = loader.tell_length(
                -(-self.batches // max(1, int(duration.value)))
            )
            state.max_duration = Time(self.batches, TimeUnit.BATCH)
            try:
                return rate(step)
            finally:
                loader.tell_length(said)
                state.dataloader_len, state.max_duration = length, duration

        return planned
