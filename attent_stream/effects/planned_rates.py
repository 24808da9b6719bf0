"""Learning rate schedules over epochs, planned for the batches of taught epochs."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from composer import State, Time, TimeUnit
from torch.optim.lr_scheduler import LambdaLR

from attent_stream.data.dataloader import TeachingDataLoader

Rate = Callable[[int], float]


class PlannedRates:
    """Makes Composer's schedulers use the expected length of a run in epochs, while attached.

    Composer assumes that all epochs are as long as the current one. With one whole epoch and two of
    half its length, a decay over ``3ep`` would end with the second epoch, and the third would train
    at rate 0. Here a share of training (``dur``) is exact, and ``ep`` is the mean epoch.

    Attributes:
        batches: Expected batches of the whole training; None to leave the schedulers unchanged.
    """

    def __init__(self) -> None:
        self.batches: int | None = None
        self._duration: Time | None = None  # of the attached run
        self._attached: list[tuple[LambdaLR, list[Rate]]] = []

    def attach(self, state: State, loader: TeachingDataLoader) -> None:
        """Wrap the schedulers of a run whose duration is in epochs."""
        self.detach()
        self._duration = state.max_duration
        if state.max_duration is None or state.max_duration.unit != TimeUnit.EPOCH:
            return
        for scheduler in state.schedulers:
            # Only functions, as Composer uses: a wrapped object would miss in checkpoints.
            if isinstance(scheduler, LambdaLR) and all(
                isinstance(rate, FunctionType) for rate in scheduler.lr_lambdas
            ):
                self._attached.append((scheduler, scheduler.lr_lambdas))
                scheduler.lr_lambdas = [
                    self._planned(rate, state, loader) for rate in scheduler.lr_lambdas
                ]

    def detach(self) -> None:
        """Restore the schedulers, and forget the plan."""
        for scheduler, rates in self._attached:
            scheduler.lr_lambdas = rates
        self._attached, self.batches = [], None

    def state_dict(self) -> dict[str, Any] | None:
        """Return the planned batches and the duration that they are for, or None."""
        return (
            None if self.batches is None else {"batches": self.batches, "over": str(self._duration)}
        )

    def load_state_dict(self, planned: dict[str, Any] | None) -> None:
        """Use a checkpoint's plan, if it is for the same duration and something is planned now."""
        if planned and self.batches is not None and planned["over"] == str(self._duration):
            self.batches = planned["batches"]

    def _planned(self, rate: Rate, state: State, loader: TeachingDataLoader) -> Rate:
        def planned(step: int) -> float:
            if self.batches is None or state.dataloader_len is None:
                return rate(step)
            said, length, duration = len(loader), state.dataloader_len, state.max_duration
            # Rounded up, or a decay over all epochs would end early. The loader's length is set
            # too, because Composer limits ``dataloader_len`` to it.
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
