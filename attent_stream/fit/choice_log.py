"""A log of what was chosen: Parquet files of samples, their scores, and whether they were kept."""

import logging
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

import numpy as np
from composer import Algorithm, Event, State
from composer.loggers import Logger
from composer.utils import dist, format_name_with_dist
from numpy.typing import NDArray

from attent_stream.base.redaction import masked, masked_text
from attent_stream.data.dataset import TeachingDataset
from attent_stream.fit.log_folder import LogFolder, file_name
from attent_stream.fit.metric_log import MetricLog
from attent_stream.fit.teaching import Listener
from attent_stream.window.choice import Choice

STREAMS = "streams.json"
RUN = "run.json"
CHOICES = "choices-"
_EVENTS = (Event.INIT, Event.FIT_START, Event.BATCH_START, Event.EVAL_END, Event.FIT_END)
_WINDOWS = 64  # windows of a file, at most
_ALL = 16  # all windows of the first 2^16 batches are logged, then ever fewer
_PACKAGES = ("attent-stream", "torch", "mosaicml", "mosaicml-streaming", "transformers")
_PRIME = np.uint64(0x9E3779B97F4A7C15)

log = logging.getLogger(__name__)


@runtime_checkable
class Chooses(Protocol):
    """An algorithm that chooses samples: AtteNT."""

    def listen(self, listener: Listener) -> None:
        """Call a function with each choice."""

    def described(self) -> dict[str, Any]:
        """What the run does, and the arguments that were given."""


class ChoiceLog(Algorithm):
    """Logs AtteNT's choices and the run's metrics, to look at what was kept and what was dropped
    (``attent-stream report``, ``attent-stream inspect``). Rank 0 writes.

    Each row is a sample in a window: ``epoch``, ``window``, ``batch`` (trained batches when it was
    chosen), ``sample`` (its id), ``stream``, ``score`` (null if there is none), ``kept``,
    ``weight`` (0 if dropped) and ``by`` (by what the window was chosen). A file is named by when
    this attempt of the run began, and by its first window. A run that goes on from a checkpoint
    writes the windows after it again, and readers take them from the later attempt. ``MetricLog``
    writes metrics beside them. Of a run without AtteNT there are metrics only, to compare with.

    Args:
        folder: A local folder, or a URL that Streaming can upload to. ``{run_name}`` is the run's.
        samples: Samples of a window that are logged, about: those of certain ids, so that they are
            the same in each epoch.
        every: Of so many windows one is logged. None: each of the first 65,536 batches, every
            second of the next 65,536, every fourth of the next 131,072, and so on.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, folder: str, samples: int = 1024, every: int | None = None) -> None:
        for name, value in (("samples", samples), ("every", 1 if every is None else every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"choice_log.{name} must be a whole number of at least 1, got {value!r}"
                )
        if not folder:
            raise ValueError(f"choice_log.folder must be a folder or a URL, got {folder!r}")
        self._path, self._samples, self._every = str(folder), samples, every
        self._folder = LogFolder(self._path)
        self._metrics: MetricLog | None = None
        self._rows: list[dict[str, NDArray]] = []
        self._starts = np.zeros(1, np.int64)
        self._attempt = 0
        self._told = self._ended = False

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return event in _EVENTS

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Listen to choices and metrics, and write them at the end."""
        if dist.get_global_rank() != 0:
            return
        if event == Event.INIT:
            self._open(state, logger)
        elif event == Event.FIT_START:
            self._rows, self._told, self._ended = [], False, False
            attent = _attent(state)
            if attent is not None:
                self._starts = state.train_dataloader.dataset.sample_offset_per_stream
                attent.listen(self._note)
        elif event == Event.BATCH_START and not self._told:
            self._tell(state)
        elif event == Event.FIT_END or (event == Event.EVAL_END and self._ended):
            self._ended = True  # Composer evaluates once more after it
            self._flush()
            self._folder.finish()

    def state_dict(self) -> dict[str, Any]:
        """Nothing; but what a checkpoint stands behind is written before it."""
        self._flush()
        self._folder.finish()
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is to be restored."""

    def _open(self, state: State, logger: Logger) -> None:
        self._folder = LogFolder(format_name_with_dist(self._path, state.run_name))
        self._attempt = int(1000 * time.time())
        others = [one for one in logger.destinations if one is not self._metrics]
        self._metrics = MetricLog(self._folder, state, self._attempt)
        logger.destinations = (*others, self._metrics)

    def _tell(self, state: State) -> None:
        """Write what the run is: AtteNT knows it by now, and workers are forked before a thread
        starts.
        """
        self._told = True
        dataset = getattr(state.train_dataloader, "dataset", None)
        if isinstance(dataset, TeachingDataset):
            self._folder.write_json(STREAMS, _streams_of(dataset))
        try:
            self._folder.write_json(RUN, masked(_run_of(state)))
        except Exception as error:  # of a model or a user's own arguments
            log.warning("The choice log could not write %s: %s", RUN, error)

    def _note(self, choice: Choice, batch: int) -> None:
        every = self._every or 1 << max(0, batch.bit_length() - _ALL)
        if choice.window.index % every == 0:
            self._rows.append(rows_of(choice, batch, self._starts, self._samples))
        if len(self._rows) >= _WINDOWS:
            self._flush()

    def _flush(self) -> None:
        if self._metrics is not None:
            self._metrics.flush()
        if not self._rows:
            return
        import pyarrow as pa

        rows, self._rows = self._rows, []
        columns = {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}
        scores = columns.pop("score")
        first = f"epoch{rows[0]['epoch'][0]:05}-window{rows[0]['window'][0]:07}"
        name = file_name(CHOICES, self._attempt, first)
        scores = pa.array(scores, mask=np.isnan(scores))
        self._folder.write_table(name, {**columns, "score": scores})


def rows_of(
    choice: Choice, batch: int, starts: NDArray[np.int64], samples: int
) -> dict[str, NDArray]:
    """The logged samples of a choice, as columns of one length.

    Args:
        choice: The choice.
        batch: Batches that were trained until then.
        starts: First sample id of each stream.
        samples: Samples that are logged, about.
    """
    window = choice.window
    ids = window.ids.reshape(-1)
    shown = logged(ids, samples / max(1, ids.size))
    kept = choice.kept.reshape(-1)
    weights = np.zeros(ids.size, np.float32)
    weights[choice.places.reshape(-1) // choice.decision.units] = choice.weights.reshape(-1)
    scores = np.full(ids.size, np.nan, np.float32)
    if choice.scores is not None:
        scores = choice.scores.reshape(-1).astype(np.float32)
    count = int(shown.sum())
    return {
        "epoch": np.full(count, window.epoch, np.int32),
        "window": np.full(count, window.index, np.int32),
        "batch": np.full(count, batch, np.int64),
        "sample": ids[shown],
        "stream": (np.searchsorted(starts, ids[shown], side="right") - 1).astype(np.int32),
        "kept": kept[shown],
        "weight": np.where(kept, weights, 0)[shown].astype(np.float32),
        "by": np.full(count, choice.decision.by),
        "score": scores[shown],
    }


def logged(ids: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which samples are logged: a share of all ids, always the same."""
    if share >= 1:
        return np.ones(ids.shape, bool)
    mixed = ids.astype(np.uint64) * _PRIME
    mixed ^= mixed >> np.uint64(32)
    mixed *= _PRIME
    return (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53


def _streams_of(dataset: TeachingDataset) -> list[dict[str, Any]]:
    """Where samples can be read again."""
    names = names_of([str(stream.remote or stream.local) for stream in dataset.streams])
    firsts = dataset.sample_offset_per_stream
    found = []
    for name, stream, first in zip(names, dataset.streams, firsts, strict=True):
        found.append(
            {
                "name": masked_text(name),
                "remote": None if stream.remote is None else masked_text(str(stream.remote)),
                "local": stream.local,
                "split": stream.split,
                "first": int(first),
            }
        )
    return found


def names_of(paths: Sequence[str]) -> list[str]:
    """Short names of paths: the last part of them that tells all apart, or whole paths."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for depth in range(1, min(map(len, parts)) + 1):
        names = [one[-depth] for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _attent(state: State) -> Chooses | None:
    return next((one for one in state.algorithms if isinstance(one, Chooses)), None)


def _run_of(state: State) -> dict[str, Any]:
    """What the run is."""
    attent = _attent(state)
    return {
        "run_name": state.run_name,
        **({"does": "plain training"} if attent is None else attent.described()),
        "parameters": sum(one.numel() for one in state.model.parameters()),
        "ranks": dist.get_world_size(),
        "samples per rank and batch": getattr(state.train_dataloader, "batch_size", None),
        "max_duration": str(state.max_duration),
        "precision": str(getattr(state.precision, "value", state.precision)),
        "seed": state.rank_zero_seed,
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
