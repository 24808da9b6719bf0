"""How long an epoch will be, as the Trainer is told, and the learning rates planned for all of
them.
"""

from typing import Any

from composer import Callback, State
from composer.loggers import Logger

from attent_stream.base.duration import total_span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.planned_rates import PlannedRates


class PlannedLength(Callback):
    """Tells a Trainer the lengths of taught epochs, by which it and schedules over epochs count.

    Args:
        loader: Forecasts the lengths.
        told: Length of the epoch that the Trainer was told in the fit before; None if none was.
        recorded: Whether the losses of training forwards are remembered.
    """

    def __init__(self, loader: TeachingDataLoader, told: int | None, *, recorded: bool) -> None:
        self._loader, self._told, self._recorded = loader, told, recorded
        self._rates = PlannedRates()

    @property
    def told(self) -> int | None:
        """Length of the epoch that the Trainer was told, or None."""
        return self._told

    def attach(self, state: State) -> None:
        """Begin to plan a run's learning rates."""
        self._rates.attach(state, self._loader)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Leave the run's learning rates to themselves."""
        self._rates.detach()

    def epoch_start(self, state: State, logger: Logger) -> None:
        """See ``begin_epoch``."""
        self.begin_epoch(state)

    def subset(self, state: State) -> int | None:
        """Batches an epoch where the user asked for a part of it (``train_subset_num_batches``)."""
        batches = None if state.dataloader_len is None else int(state.dataloader_len)
        return (
            None
            if batches is None or batches >= self._loader.plain_batches or batches == self._told
            else batches
        )

    def begin_epoch(self, state: State) -> None:
        """Tell the length that the epoch is forecast to have. A subset that the user
        asked for stays.
        """
        loader, subset = self._loader, self.subset(state)
        done = int(state.timestamp.batch_in_epoch)
        length = loader.forecast(done=done)
        if subset is not None or state.dataloader_len is None:
            return
        state.dataloader_len = self._told = length
        time, total = state.timestamp, total_span(state.max_duration)
        self._rates.batches = None
        if total is not None and total.unit == "ep":
            left = loader.expect(
                int(total.value) - int(time.epoch), done=done, recorded=self._recorded
            )
            self._rates.batches = int(time.batch) - done + left

    def state_dict(self) -> dict[str, Any]:
        """What was told and planned."""
        return {"told": self._told, "planned": self._rates.state_dict()}

    def resume_epoch(self, state: State, planned: dict[str, Any]) -> None:
        """In the middle of an epoch tell what ``state_dict`` says was told: what is forecast on the
        way may differ.
        """
        self._rates.load_state_dict(planned.get("planned"))
        if planned["told"] is not None and self._told is not None:
            state.dataloader_len = self._told = self._loader.tell_length(planned["told"])
