"""Learning rates over epochs, planned for the batches that taught epochs have."""

from collections.abc import Callable

from composer import State, TimeUnit
from torch.optim.lr_scheduler import LambdaLR

from attent_stream.dataloader import TeachingDataLoader

Rate = Callable[[int], float]


class PlannedRates:
    """While it is attached, Composer's schedulers take every epoch of a run in epochs for its mean length.

    They take all for as long as the current one: with a first epoch on everything and two halves, a decay over ``3ep`` would
    be over behind the second, and the third trained at no rate at all.

    Attributes:
        batches: Of the whole training, or None to leave the schedulers as they are.
    """

    def __init__(self) -> None:
        self.batches: int | None = None
        self._attached: list[tuple[LambdaLR, list[Rate]]] = []

    def attach(self, state: State, loader: TeachingDataLoader) -> None:
        """Begin with the schedulers of a run whose duration is in epochs; else do nothing."""
        self.detach()
        if state.max_duration is None or state.max_duration.unit != TimeUnit.EPOCH:
            return
        for scheduler in state.schedulers:
            if isinstance(scheduler, LambdaLR):  # what Composer makes of its own
                self._attached.append((scheduler, scheduler.lr_lambdas))
                scheduler.lr_lambdas = [self._planned(rate, state, loader) for rate in scheduler.lr_lambdas]

    def detach(self) -> None:
        """Leave the schedulers as they were, and plan nothing."""
        for scheduler, rates in self._attached:
            scheduler.lr_lambdas = rates
        self._attached, self.batches = [], None

    def _planned(self, rate: Rate, state: State, loader: TeachingDataLoader) -> Rate:
        def planned(step: int) -> float:
            if self.batches is None or state.dataloader_len is None:
                return rate(step)
            said, length = len(loader), state.dataloader_len
            # Up, or a decay would be over before its end; the loader too, or Composer would not believe more than it says.
            state.dataloader_len = loader.tell_length(-(-self.batches // int(state.max_duration.value)))
            try:
                return rate(step)
            finally:
                loader.tell_length(said)
                state.dataloader_len = length

        return planned
