"""Read what a run has measured."""

import json
import re
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
            run = _run(path / RUN)
        except (pa.ArrowException, OSError) as error:
            raise LogError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from error
    if not tables:
        return Measured(run=run)
    table = pa.concat_tables(tables)
    rows = {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS}
    lengths = [len(one) for one in tables]
    attempts = np.repeat([attempt_of(file.name) for file in files], lengths)
    taken = of_last_attempts(rows["batch"], attempts)
    rows = {name: column[taken] for name, column in rows.items()}
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


def attempt_of(name: str) -> int:
    """When the attempt began that wrote a file; 0 for logs of before."""
    found = re.match(r"[a-z]+-([0-9]{14})-", name)
    return int(found[1]) if found else 0


def of_last_attempts(places: NDArray, attempts: NDArray) -> NDArray[np.bool_]:
    """Which rows no later attempt has written again.

    Args:
        places: Where in the run each row belongs, such as its batch, shape (n,).
        attempts: The attempt that wrote it, shape (n,).
    """
    taken = np.ones(len(places), bool)
    for attempt in np.unique(attempts)[1:]:
        first = places[attempts == attempt].min()
        taken &= (attempts >= attempt) | (places < first)
    return taken


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
