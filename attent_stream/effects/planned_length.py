"""How long an epoch will be, as the Trainer is told, and the learning rates planned for all of
them.
"""

from typing import Any

from composer import State

from attent_stream.base.duration import total_span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.planned_rates import PlannedRates


class PlannedLength:
    """Tells a Trainer the lengths of taught epochs, by which it counts, as do schedules over
    epochs.
    """

    def __init__(self) -> None:
        self._loader: TeachingDataLoader | None = None
        self._rates = PlannedRates()
        self._told: int | None = None  # the epoch's length as the Trainer was told it

    def attach(self, state: State, loader: TeachingDataLoader) -> None:
        """Begin with a run; nothing is told before ``begin_epoch``."""
        self._loader = loader
        self._rates.attach(state, loader)

    def detach(self) -> None:
        """Leave the run's learning rates to themselves."""
        self._rates.detach()

    def subset(self, state: State, loader: TeachingDataLoader) -> int | None:
        """Batches an epoch where the user asked for a part of it (``train_subset_num_batches``)."""
        batches = None if state.dataloader_len is None else int(state.dataloader_len)
        return (
            None
            if batches is None or batches >= loader.plain_batches or batches == self._told
            else batches
        )

    def begin_epoch(self, state: State, *, recorded: bool) -> None:
        """Tell what the epoch is forecast to have; a subset asked for by the user stays.

        Args:
            state: Of the run.
            recorded: Whether training forwards fill the ledger.
        """
        loader, subset = self._loader, self.subset(state, self._loader)
        done = int(state.timestamp.batch_in_epoch)
        length = loader.forecast(done=done)
        if subset is not None or state.dataloader_len is None:
            return
        state.dataloader_len = self._told = length
        time, total = state.timestamp, total_span(state.max_duration)
        self._rates.batches = None
        if total is not None and total.unit == "ep":
            left = loader.expect(int(total.value) - int(time.epoch), done=done, recorded=recorded)
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
