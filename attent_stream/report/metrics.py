"""Read what a run has measured."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.fit.choice_log import RUN
from attent_stream.fit.metric_log import AXES, COLUMNS, PREFIX
from attent_stream.report.errors import LogError
from attent_stream.report.log_files import Rows, local_files, read_rows


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


def read_measured(folder: str | Path, told: str | None = None) -> Measured:
    """Read the metrics of a ``choice_log``; nothing, if it has none.

    What a later attempt of the run has measured again is taken from it.

    Args:
        folder: A local folder, or the URL of one on object storage.
        told: What errors call it, if that is not the folder.

    Raises:
        LogError: A file cannot be read.
    """
    from pyarrow import ArrowException

    with local_files(folder) as path:
        try:
            run, files = _run(path / RUN), list(path.glob(f"{PREFIX}*.parquet"))
            if not files:
                return Measured(run=run)
            rows, _ = read_rows(files, COLUMNS, lambda rows: rows["batch"])
        except (ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise LogError(f"{told or folder} cannot be read: {reason}") from error
    names = rows["name"].astype(str)
    return Measured(
        curves={name: _curve(rows, names == name) for name in np.unique(names).tolist()}, run=run
    )


def _run(path: Path) -> dict[str, Any]:
    """What the run is; nothing if that is not there or no mapping."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _curve(rows: Rows, of: NDArray[np.bool_]) -> Curve:
    batches = rows["batch"][of]
    # The last of each batch: files are in order
    _, last = np.unique(batches[::-1], return_index=True)
    taken = len(batches) - 1 - last
    return Curve(
        at={axis: rows[axis][of][taken] for axis in AXES},
        values=rows["value"][of][taken].astype(np.float64),
    )


def smoothed(values: NDArray[np.float64], share: float = 0.02) -> NDArray[np.float64]:
    """Means of the finite values of a moving part, ``share`` of all wide, shorter at both ends."""
    width = max(1, round(len(values) * share))
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(len(values))
    low, high = np.maximum(0, ends - width // 2), np.minimum(len(values), ends + width // 2 + 1)
    number = counts[high] - counts[low]
    nothing = np.full(len(values), np.nan)
    return np.divide(sums[high] - sums[low], number, out=nothing, where=number > 0)
