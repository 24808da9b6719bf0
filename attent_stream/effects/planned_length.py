"""Sets the Trainer's epoch length, and plans learning rates for the whole run."""

from typing import Any

from composer import State
from composer.loggers import Logger

from attent_stream.base.duration import total_span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.effects.planned_rates import PlannedRates


class PlannedLength(Effect):
    """Sets the lengths of taught epochs, on which the Trainer and schedules over epochs depend.

    Args:
        loader: Forecasts the lengths.
        told: Length that was set in the previous fit, or None.
        recorded: Whether the losses of training forwards are recorded.
    """

    def __init__(self, loader: TeachingDataLoader, told: int | None, *, recorded: bool) -> None:
        self._loader, self._told, self._recorded = loader, told, recorded
        self._rates = PlannedRates()

    @property
    def told(self) -> int | None:
        """Length of the epoch that was set, or None."""
        return self._told

    def attach(self, state: State) -> None:
        """Begin to plan the run's learning rates."""
        self._rates.attach(state, self._loader)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop planning learning rates."""
        self._rates.detach()

    def epoch_start(self, state: State, logger: Logger) -> None:
        """See ``begin_epoch``."""
        self.begin_epoch(state)

    def subset(self, state: State) -> int | None:
        """Batches of an epoch if the user set ``train_subset_num_batches``, else None."""
        batches = None if state.dataloader_len is None else int(state.dataloader_len)
        return (
            None
            if batches is None or batches >= self._loader.plain_batches or batches == self._told
            else batches
        )

    def begin_epoch(self, state: State) -> None:
        """Set the forecast length of the epoch, unless the user set a subset."""
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
        """Return the length that was set, and the planned rates."""
        return {"told": self._told, "planned": self._rates.state_dict()}

    def resume_epoch(self, state: State, planned: dict[str, Any]) -> None:
        """Restore the length from ``state_dict`` within an epoch, as a new forecast may differ."""
        self._rates.load_state_dict(planned.get("planned"))
        if planned["told"] is not None and self._told is not None:
            state.dataloader_len = self._told = self._loader.tell_length(planned["told"])
