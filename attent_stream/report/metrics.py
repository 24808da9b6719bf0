"""Read what a run has measured."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.fit.choice_log import RUN
from attent_stream.fit.metric_log import PREFIX
from attent_stream.report.errors import LogError
from attent_stream.report.log_files import local_files

AXES = ("batch", "tokens", "samples", "seconds")
COLUMNS = (*AXES, "name", "value")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric over training.

    Attributes:
        at: Batches, tokens, samples and seconds of training, each of shape (n,), by name.
        values: Its values, float64 of shape (n,).
    """

    at: dict[str, NDArray]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run has measured, and what it is.

    Attributes:
        curves: By the metric's name.
        run: What ``choice_log`` wrote of the run; empty for logs of before.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


def read_measured(folder: str | Path) -> Measured:
    """Read the metrics of a ``choice_log``; nothing, if it has none.

    A metric that two files have of a batch is taken from the one whose name is later.

    Raises:
        LogError: A file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with local_files(folder) as path:
        try:
            files = sorted(path.glob(f"{PREFIX}*.parquet"))
            tables = [pq.read_table(file, columns=list(COLUMNS)) for file in files]
            told = path / RUN
            run = json.loads(told.read_text("utf-8")) if told.is_file() else {}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise LogError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(run, dict):
        raise LogError(f"{folder}: {RUN} must be a mapping, got {type(run).__name__}")
    if not tables:
        return Measured(run=run)
    table = pa.concat_tables(tables)
    rows = {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS}
    names = rows["name"].astype(str)
    return Measured(
        curves={name: _curve(rows, names == name) for name in np.unique(names).tolist()}, run=run
    )


def _curve(rows: dict[str, NDArray], of: NDArray[np.bool_]) -> Curve:
    batches = rows["batch"][of]
    # The last of each batch: files are in order
    _, last = np.unique(batches[::-1], return_index=True)
    taken = len(batches) - 1 - last
    return Curve(
        at={axis: rows[axis][of][taken] for axis in AXES},
        values=rows["value"][of][taken].astype(np.float64),
    )


def smoothed(values: NDArray[np.float64], share: float = 0.02) -> NDArray[np.float64]:
    """Means over a moving part of the values, ``share`` of them wide, shorter at both ends."""
    width = max(1, round(len(values) * share))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    low, high = np.maximum(0, ends - width // 2), np.minimum(len(values), ends + width // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)
