"""Read the log of a run's choices."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.fit.choice_log import STREAMS
from attent_stream.fit.metric_log import PREFIX
from attent_stream.report.errors import LogError
from attent_stream.report.log_files import Rows, local_files, read_rows

COLUMNS = ("epoch", "window", "batch", "sample", "stream", "kept", "weight", "by", "score")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Where a stream's samples are.

    Attributes:
        name: Last part of its path.
        remote, local, split: As Streaming's ``Stream`` has them.
        first: Id of its first sample.
    """

    name: str
    remote: str | None
    local: str | None
    split: str | None
    first: int


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The log of a run.

    Attributes:
        rows: Columns by name, each of shape (n,), in the order of epochs and windows.
        streams: The streams.
    """

    rows: dict[str, NDArray]
    streams: tuple[Stream, ...]


@dataclass(frozen=True, kw_only=True)
class SampleHistory:
    """What became of a sample.

    Attributes:
        sample: Its id.
        stream: Number of its stream.
        seen, kept: Windows in which it was, and in which it was kept.
        score: Mean of its scores that are known; NaN without any.
        rank: Mean share of its windows' other scores that were lower; NaN without any. Scores fall
            while a model learns, so ranks tell samples of different times apart.
    """

    sample: int
    stream: int
    seen: int
    kept: int
    score: float
    rank: float


def read_choices(folder: str | Path, told: str | None = None) -> Choices:
    """Read the files of a ``choice_log``.

    Windows that a later attempt of the run has chosen again are taken from it. In logs of before,
    a window that is in two files is taken from the one whose name is later.

    Args:
        folder: A local folder, or the URL of one on object storage.
        told: What errors call it, if that is not the folder.

    Raises:
        LogError: The folder has no log, or one that cannot be read.
    """
    from pyarrow import ArrowException

    told = told or str(folder)
    with local_files(folder) as path:
        files = _files(path)
        if not files or not (path / STREAMS).is_file():
            raise LogError(
                f"{told} has no log of choices: add choice_log: {{folder: ...}} to the run's "
                "algorithms, and give that folder"
            )
        try:
            rows, file = read_rows(files, COLUMNS, _place)
            listed = json.loads((path / STREAMS).read_text("utf-8"))
            streams = tuple(Stream(**one) for one in listed)
        except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise LogError(f"{told} cannot be read: {str(error).splitlines()[0]}") from error
    rows["by"] = rows["by"].astype(str)
    rows["score"] = rows["score"].astype(np.float64)
    return Choices(rows=_latest(rows, file), streams=streams)


def has_choices(folder: Path) -> bool:
    """Whether there are choices in a folder, and not only metrics, as of a run without AtteNT."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    return [one for one in folder.glob("*.parquet") if not one.name.startswith(PREFIX)]


def _place(rows: Rows) -> NDArray[np.int64]:
    """The window of each row, numbered through epochs."""
    return rows["epoch"].astype(np.int64) << 32 | rows["window"]


def _latest(rows: dict[str, NDArray], file: NDArray[np.int64]) -> dict[str, NDArray]:
    """The rows of each window's latest file, by epoch, window and their order in the file."""
    order = np.lexsort((np.arange(len(file)), file, rows["window"], rows["epoch"]))
    ordered, file = {name: column[order] for name, column in rows.items()}, file[order]
    latest = [file[part] == file[part].max() for part in windows(ordered)]
    taken = np.concatenate(latest)
    return {name: column[taken] for name, column in ordered.items()}


def histories(choices: Choices) -> list[SampleHistory]:
    """What became of each logged sample, by its id."""
    rows = choices.rows
    ids, first, which = np.unique(rows["sample"], return_index=True, return_inverse=True)
    seen = np.bincount(which, minlength=len(ids))
    kept = np.bincount(which, weights=rows["kept"], minlength=len(ids)).astype(int)
    scores, order = (_means(values, which, len(ids)) for values in (rows["score"], ranks(rows)))
    streams = rows["stream"][first]
    return [
        SampleHistory(
            sample=int(ids[at]),
            stream=int(streams[at]),
            seen=int(seen[at]),
            kept=int(kept[at]),
            score=float(scores[at]),
            rank=float(order[at]),
        )
        for at in range(len(ids))
    ]


def windows(rows: dict[str, NDArray]) -> list[slice]:
    """The rows of each window, in order."""
    changes = (np.diff(rows["epoch"]) != 0) | (np.diff(rows["window"]) != 0)
    new = np.flatnonzero(np.r_[True, changes])
    return [slice(a, b) for a, b in zip(new, np.r_[new[1:], len(rows["epoch"])], strict=True)]


def ranks(rows: dict[str, NDArray]) -> NDArray[np.float64]:
    """Share of its window's other scores that are below each score; NaN where it is not known."""
    found = np.full(len(rows["score"]), np.nan)
    for part in windows(rows):
        scores = rows["score"][part]
        known = np.isfinite(scores)
        values = np.sort(scores[known])
        if len(values) > 1:
            below = np.searchsorted(values, scores[known])
            above = len(values) - np.searchsorted(values, scores[known], side="right")
            # Equal scores count half.
            found[np.flatnonzero(known) + part.start] = 0.5 + (below - above) / (
                2 * (len(values) - 1)
            )
    return found


def _means(values: NDArray, which: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Mean of the known values of each group; NaN for those without any."""
    known = np.isfinite(values)
    total = np.bincount(which[known], weights=values[known], minlength=count)
    number = np.bincount(which[known], minlength=count)
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)


def sorted_by(found: Sequence[SampleHistory], key: str) -> list[SampleHistory]:
    """Histories in an order of ``ORDERS``."""
    return sorted(found, key=ORDERS[key])


def _rank(one: SampleHistory, missing: float) -> float:
    return one.rank if np.isfinite(one.rank) else missing


# By name: the highest scores in their windows, the lowest, the most often kept and dropped
ORDERS: dict[str, Any] = {
    "highest": lambda one: (-_rank(one, -1), one.sample),
    "lowest": lambda one: (_rank(one, 2), one.sample),
    "kept": lambda one: (-one.kept, -_rank(one, -1), one.sample),
    "dropped": lambda one: (one.kept - one.seen, _rank(one, 2), one.sample),
}
