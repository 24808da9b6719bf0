"""``AtteNT``: the Composer algorithm. It listens to events and connects; what is computed stands elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from composer import Algorithm, Event, Logger, State, Time
from composer.core import get_precision_context
from composer.devices import DeviceGPU

from attent_stream.clock import state_clock, total_span
from attent_stream.dataloader import TeachingDataLoader
from attent_stream.errors import AttentError
from attent_stream.gather import gather_ranks
from attent_stream.guard import untouched
from attent_stream.ledger import Ledger
from attent_stream.metrics import choice_metrics
from attent_stream.schedule import Phases, Span, parse_interval, parse_keep
from attent_stream.scoring.fitting import FittingScorer
from attent_stream.scoring.scorer import SCORES, Scorer, build_scorer
from attent_stream.stopwatch import Stopwatch
from attent_stream.teacher import ALL, Choice, Teacher, TeacherSettings

RECORDS = ("never", "warmup", "always")


class AtteNT(Algorithm):
    """Nonparametric teaching of attention learners (AtteNT, ICLR 2026), window by window on the stream.

    Needs a :class:`TeachingDataLoader` as the Trainer's train loader. At AFTER_DATALOADER it scores the candidates read so
    far, without gradients and in eval mode, and chooses the next window's lessons when all are scored. Transforms of a
    ``DataSpec`` reach lessons only; put into the loader's ``collate_fn`` what scoring must see.

    Args:
        keep: Share of a window's rows that become lessons, in (0, 1], or a schedule ``{schedule, from, to, over, stages}``.
        score: ``residual`` (||f(S) - f*(S)||, root mean square over valid tokens; the paper's), ``loss``, or a callable
            ``(model, batch) -> (B,) tensor``, higher = teach it.
        select: ``hard`` (top scores), ``soft`` (drawn by score) or ``random`` (the control: same counts, no scoring).
        interval: How long a score is reused when its sample comes again: ``dense``, a time string, a linear growth
            ``{schedule: linear, from, to, over}``, or ``incremental``. ``1ep``: fresh in every epoch.
        warmup: Time string; before it everything is trained on.
        anneal: Time string; in the last stretch of this length everything is trained on.
        temperature: Of ``soft``: towards 0 it is ``hard``, towards infinity ``random``.
        seed: Of every draw.
        record: When the training forward's own per-sample scores fill the ledger, at no extra pass: ``never``,
            ``warmup`` (only before ``warmup`` is over) or ``always``.
        score_batch: Samples per scoring forward; None: the training microbatch.

    Raises:
        ValueError: An argument out of range, a bad name (the good ones are listed).
    """

    def __init__(
        self,
        *,
        keep: float | Mapping[str, Any] = 0.7,
        score: str | Callable[[Any, Any], torch.Tensor] = "residual",
        select: str = "hard",
        interval: str | Mapping[str, Any] = "1ep",
        warmup: str = "0ba",
        anneal: str = "0ba",
        temperature: float = 1.0,
        seed: int = 17,
        record: str = "never",
        score_batch: int | None = None,
    ) -> None:
        self.settings = TeacherSettings(
            keep=parse_keep(keep),
            select=select,
            temperature=temperature,
            interval=parse_interval(interval),
            phases=Phases(warmup=Span.parse(warmup), anneal=Span.parse(anneal)),
            seed=seed,
        )
        if not callable(score) and score not in SCORES:
            raise ValueError(f"score must be one of {sorted(SCORES)} or a callable, got {score!r}")
        if record not in RECORDS:
            raise ValueError(f"record must be one of {list(RECORDS)}, got {record!r}")
        if record != "never" and callable(score):
            raise ValueError(
                f"record={record!r} needs a score that the training forward gives ({sorted(SCORES)}), got a callable"
            )
        if score_batch is not None and score_batch < 1:
            raise ValueError(f"score_batch must be at least 1 sample or None, got {score_batch!r}")
        self.score = score
        self.record = record
        self.score_batch = score_batch
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.EPOCH_START: self._epoch_start,
            Event.AFTER_DATALOADER: self._teach,
            Event.BEFORE_TRAIN_BATCH: self._batch_begins,
            Event.AFTER_FORWARD: self._forward_done,
            Event.BATCH_END: self._batch_done,
            Event.FIT_END: self._fit_end,
        }
        self.last_choice: Choice | None = None
        self._loader: TeachingDataLoader | None = None
        self._teacher: Teacher | None = None
        self._fitted = False  # an earlier fit of this process has ended, and the data set stands where it ended
        self._scorer: Scorer | None = None
        self._fitting: FittingScorer | None = None
        self._first_batch: Time | None = None  # of this fit
        self._ledger: Ledger | None = None
        self._micro: list[torch.Tensor] = []  # this batch's training scores, a tensor a microbatch
        self._pending: list[torch.Tensor] = []  # (3, batch_size) ids, scores and times of lessons not yet in the ledger
        self._teaching = Stopwatch()
        self._batch_began = time.perf_counter()
        self._told: int | None = None  # the epoch's length as we told it to the Trainer
        self._counts = {"candidates": 0, "lessons": 0, "dropped": 0, "nonfinite": 0}

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Do it."""
        self._events[event](state, logger)

    @property
    def remembers(self) -> bool:
        """Whether scores can be used again, so that a ledger is kept."""
        if self.settings.select == "random":
            return False
        return self.record != "never" or self.settings.interval.outlasts_an_epoch

    def state_dict(self) -> dict[str, Any]:
        """Counts and the ledger: plain numbers and tensors. All ranks must call it together."""
        if self._loader is not None:
            self._flush()
        ledger = None if self._ledger is None else self._ledger.state_dict()
        return {"version": 1, "counts": dict(self._counts), "ledger": ledger}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: A state of another version.
        """
        if state.get("version") != 1:
            raise ValueError(f"expected AtteNT's state of version 1, got version {state.get('version')!r}")
        self._counts = {name: int(state["counts"].get(name, 0)) for name in self._counts}
        if state["ledger"] is not None and self.remembers:
            self._ledger = Ledger.from_state(state["ledger"])

    def _fit_start(self, state: State, logger: Logger) -> None:
        loader = state.train_dataloader
        if not isinstance(loader, TeachingDataLoader):
            raise TypeError(
                f"AtteNT needs a TeachingDataLoader over a TeachingDataset as train_dataloader, got {type(loader).__name__}"
            )
        self._loader = loader
        self._teaching = Stopwatch(gpu=isinstance(state.device, DeviceGPU))
        self._scorer = build_scorer(self.score, state.model)
        self._fitting = FittingScorer(self._scorer, state.model)
        self._first_batch = state.timestamp.batch
        if self._ledger is None and self.remembers:
            self._ledger = Ledger(loader.dataset.num_samples)
        total = total_span(state.max_duration)
        self._teacher = teacher = Teacher(self.settings, clock=state_clock(state, loader), total=total, ledger=self._ledger)
        teacher.keep(teacher.clock(0, 0, 0.0))  # an anneal that cannot be told against max_duration is refused now
        if self._fitted and int(state.timestamp.batch_in_epoch) > 0:
            loader.dataset.continue_epoch(int(state.timestamp.sample_in_epoch))
        if int(state.timestamp.batch) > 0:
            # Composer would else go through the epochs behind, and the batches of this one, to where the data set is.
            state.dataset_resumption["train"] = True
        loader.attach(teacher)
        self._epoch_start(state, logger)

    def _fit_end(self, state: State, logger: Logger) -> None:
        self._fitted = True
        self._loader.attach(None)  # the loader is its owner's again, and plain

    def _epoch_start(self, state: State, logger: Logger) -> None:
        if self._loader is None:
            return
        self._flush()
        # Epoch-based schedules and the Trainer count by this; a subset asked for by the user stays.
        plain = self._loader.plain_batches
        subset = int(state.dataloader_len) if state.dataloader_len is not None else plain
        length = self._loader.forecast(done=int(state.timestamp.batch_in_epoch))
        if state.dataloader_len is not None and (subset >= plain or subset == self._told):
            state.dataloader_len = self._told = length
        self._batch_began = time.perf_counter()

    def _teach(self, state: State, logger: Logger) -> None:
        loader = self._loader
        if loader.epoch is None:
            return
        with self._teaching:
            if loader.epoch.due:
                self._flush()
            choices = loader.teach(lambda batch: self._score(state, batch))
        for choice in choices:
            self._log(choice, logger)

    def _score(self, state: State, batch: Any) -> torch.Tensor:
        batch = state.device.batch_to_device(batch)
        with untouched(state.model), get_precision_context(state.precision, state.precision_config):
            scores = self._fitting(batch, self._samples_at_once(state))
        return state.device.tensor_to_device(scores)  # a callable's may be elsewhere, and NCCL gathers on the device only

    def _samples_at_once(self, state: State) -> int:
        if self.score_batch is not None:
            return self.score_batch
        if state.auto_microbatching and self._fitting.sharded and state.timestamp.batch == self._first_batch:
            return 1  # what fits is not known before the first batch has been trained on, and here there is no second try
        size = state.device_train_microbatch_size
        return size if isinstance(size, int) else self._loader.batch_size

    def _batch_begins(self, state: State, logger: Logger) -> None:
        self._micro = []

    def _forward_done(self, state: State, logger: Logger) -> None:
        if self._records(state):
            with torch.no_grad():
                self._micro.append(self._scorer.from_outputs(state.model, state.outputs, state.batch))

    def _batch_done(self, state: State, logger: Logger) -> None:
        if self._micro:
            ids = self._loader.epoch.lesson[0]
            scores = torch.cat(self._micro)
            if len(scores) != len(ids):
                raise AttentError(
                    f"record={self.record!r} needs a score for each of the batch's {len(ids)} lessons and the training forward "
                    f"gave {len(scores)}: leave away the algorithm that changes batches, or set record to never"
                )
            row = torch.full((3, self._loader.batch_size), -1.0, dtype=torch.float64, device=scores.device)
            row[0, : len(ids)] = torch.from_numpy(ids).to(row.device)
            row[1, : len(ids)] = scores
            row[2] = self._teacher.time(self._loader.epoch.order.epoch)
            self._pending.append(row)
            self._micro = []
        now, teaching = time.perf_counter(), self._teaching.take()
        share = teaching / max(now - self._batch_began, 1e-9)
        self._batch_began = now
        logger.log_metrics({"attent/seconds": teaching, "attent/share_of_step": share})

    def _records(self, state: State) -> bool:
        if self.record == "never" or self._loader.epoch is None:
            return False
        choice = self._loader.epoch.segment.choice  # None: what follows the last full row, of which all is kept
        return self.record == "always" or choice is None or choice.decision.by == ALL

    def _flush(self) -> None:
        """Put what the training forwards of all ranks have recorded into the ledger of each."""
        if not self._pending:
            return
        rows = gather_ranks(torch.stack(self._pending), self._loader.dataset.replication or 1)
        self._pending = []
        for batch in rows.swapaxes(0, 1):  # (ranks, 3, batch_size), all of one time
            ids, scores, times = batch.swapaxes(0, 1).reshape(3, -1)
            real = ids >= 0
            self._teacher.remember(ids[real].astype(np.int64), scores[real], times[0])

    def _log(self, choice: Choice, logger: Logger) -> None:
        metrics, counts = choice_metrics(choice, self._loader.epoch.order.stream_starts)
        for name, count in counts.items():
            self._counts[name] += count
        self.last_choice = choice
        logger.log_metrics({f"attent/{k}": v for k, v in {**metrics, **self._counts}.items()})
