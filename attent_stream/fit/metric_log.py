"""A log of metrics: losses, evaluations, and what AtteNT reports, over batches, tokens and time."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from composer import State
from composer.loggers import LoggerDestination

from attent_stream.fit.log_folder import LogFolder, file_name

PREFIX = "metrics-"
AXES = ("batch", "tokens", "samples", "seconds")
COLUMNS = (*AXES, "name", "value")
LOGGED = ("loss/", "metrics/", "attent/", "lr-")  # beginnings of names
EVALUATED = "metrics/"
TRAINED = "metrics/train/"
_ROWS = 4096  # of a file, at most
_EACH = 11  # metrics of each of the first 2^11 batches are logged, then of ever fewer


class MetricLog(LoggerDestination):
    """Writes metrics to Parquet files: ``batch``, ``tokens``, ``samples``, ``seconds`` of training,
    ``name`` and ``value``.

    Of the first 2,048 batches each is logged, of the next 2,048 every second, of the next 4,096
    every fourth, and so on. So a log grows with the logarithm of a run's length. Evaluations are
    all logged. A file is named by the attempt and its first batch. What a later attempt has trained
    on again is taken from it.

    Args:
        folder: Where files are written.
        state: The Trainer's state.
        attempt: When this attempt of the run began, in milliseconds.
    """

    def __init__(self, folder: LogFolder, state: State, attempt: int = 0) -> None:
        self._folder, self._state, self._attempt = folder, state, attempt
        self._rows: list[tuple[int, int, int, float, str, float]] = []
        self._last: dict[str, int] = {}
        self._names: set[str] = set()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """See ``LoggerDestination``."""
        time = self._state.timestamp
        batch = int(time.batch) if step is None else int(step)
        place = (batch, int(time.token), int(time.sample), time.total_wct.total_seconds())
        apart = 1 << max(0, batch.bit_length() - _EACH)
        for name, value in metrics.items():
            thinned = not name.startswith(EVALUATED) or name.startswith(TRAINED)
            if not name.startswith(LOGGED):
                continue
            if thinned and self._last.get(name, -1) // apart == batch // apart:
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            self._last[name] = batch
            self._rows.append((*place, name, number))
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        self._folder.write_table(self._file(rows[0][0]), columns)

    def _file(self, batch: int) -> str:
        """A name that this run has not used yet."""
        for number in count():
            name = file_name(PREFIX, self._attempt, f"batch{batch:09}-{number:02}")
            if name not in self._names:
                break
        self._names.add(name)
        return name
