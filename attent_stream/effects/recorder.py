"""The recorder: scores lessons by their training forwards, without an extra pass."""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from composer import Event, State
from composer.loggers import Logger
from composer.utils import dist
from numpy.typing import NDArray
from torch.nn import Module

from attent_stream.base.empty import is_empty
from attent_stream.base.errors import AttentError, ScoreError, in_words
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reading import CLASSES, Reading
from attent_stream.model.saved import saved_losses
from attent_stream.model.trained import Trained
from attent_stream.model.wrapping import model_name
from attent_stream.score.scorer import Scorer
from attent_stream.teach.teacher import Teacher
from attent_stream.window.decision import ALL

_STOPPED = -np.inf  # instead of a time, if a rank could not score a batch

log = logging.getLogger(__name__)


class _Lessons(NamedTuple):
    """The scores of a batch.

    Args:
        ids: Its lessons' sample ids, shape (n,).
        scores: Their scores, by micro-batch; n in all.
        width: Most lessons of a batch, the same on all ranks.
        time: When it was trained on.
    """

    ids: NDArray[np.int64]
    scores: list[torch.Tensor]
    width: int
    time: float


class Recorder(Effect):
    """Scores lessons by their training forwards, and gathers all ranks' scores once a window.

    Args:
        scorer: Scores outputs.
        loader: Has the sample ids of a batch.
        teacher: Has the ledger.
        check: Finds how the model's outputs are read, by its loss.
        form: Counts the samples of a micro-batch.
        always: Record the lessons of all windows, not only of those that are kept whole.
        auto: Whether Composer searches for the size of a micro-batch.
        asked: Whether the user asked for recording. Then a failure is an error. If not, it is
            logged once, and recording stops.
        spent: Measures the time it takes.

    Attributes:
        stopped: Whether recording has stopped on all ranks, because one could not score a batch.
    """

    def __init__(
        self,
        scorer: Scorer,
        loader: TeachingDataLoader,
        teacher: Teacher,
        *,
        check: LossCheck,
        form: BatchForm,
        always: bool,
        auto: bool,
        asked: bool,
        spent: Stopwatch,
    ) -> None:
        self.stopped = False
        self._scorer, self._loader, self._teacher = scorer, loader, teacher
        self._check, self._form, self._auto, self._asked = check, form, auto, asked
        self._always, self._spent = always, spent
        # Size of a micro-batch -> whether the loss's graph has the losses of its samples.
        self._agrees: dict[int, bool] = {}
        self._seen = False  # whether this batch's first micro-batch was tested
        self._fault: str | None = None  # why this rank stopped
        self._device = torch.device("cpu")  # of its scores
        self._micro: list[torch.Tensor] = []  # scores of this batch, by micro-batch
        self._pending: list[_Lessons] = []  # to put into the ledger

    @property
    def reading(self) -> Reading | None:
        """How the model's outputs are read; None if not known, or if the loss does not use them."""
        return self._check.reading

    def stop(self) -> None:
        """Stop recording. All ranks must call this together."""
        self.stopped, self._micro = True, []

    def epoch_start(self, state: State, logger: Logger) -> None:
        """Put pending scores into the ledger."""
        self.flush()

    def idle(self, event: Event, state: State) -> bool:
        """A batch needs a beginning only after one that was not ended."""
        return event is Event.BEFORE_TRAIN_BATCH and not self._micro and not self._seen

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch again after one that failed."""
        self._micro, self._seen = [], False

    def after_loss(self, state: State, logger: Logger) -> None:
        """Score a micro-batch before its backward.

        Raises:
            ScoreError: The user asked for recording, and no reading of the outputs reproduces the
                loss.
        """
        with self._spent:
            self.loss_done(state.model, state.outputs, state.batch, state.loss)

    def loss_done(self, model: Module, outputs: Any, batch: Any, loss: Any) -> None:
        """See ``after_loss``."""
        epoch = self._loader.epoch
        if epoch is None or self.stopped:
            return
        # What follows the last full row has no choice, and is kept whole.
        choice = epoch.segment.choice
        records = self._always or choice is None or choice.decision.by == ALL
        if not records and self.reading is not None:
            return
        with torch.no_grad():
            self._look(model, outputs, batch, loss)
            if not records or self.stopped or self.reading is None or self._fault is not None:
                return
            if self._loader.fault:
                self._fault = self._loader.fault
                return
            try:
                self._micro.append(self._scores(model, outputs, batch, loss))
                self._device = self._micro[-1].device
            except Exception as error:
                # Composer retries with smaller micro-batches if memory runs out.
                if self._asked or (self._auto and out_of_memory(error)):
                    raise
                self._fault = in_words(error)

    def _look(self, model: Module, outputs: Any, batch: Any, loss: Any) -> None:
        """Test the reading on a batch's first micro-batch. All ranks call this together."""
        if self._seen:
            return
        self._seen = True
        self._check.look(
            lambda: Trained.of(outputs, batch, loss, self._form.rows(batch)), keep=self._asked
        )
        if self._check.reason is not None and not self.stopped:  # the same on all ranks
            self.stopped = True
            self._say(model, self._check.reason)

    def _say(self, model: Module, fault: str) -> None:
        told = (
            f"the training losses of {model_name(model)}'s samples cannot be recorded, as {fault}"
        )
        if self._asked:
            raise ScoreError(f"{told}: set remember to never, or remove it")
        if dist.get_global_rank() == 0:
            log.warning(
                "Training continues without remembered losses: %s. To choose by scores, set score "
                "to a function (model, batch) -> (B,) tensor. To silence this, set remember to "
                "never.",
                told,
            )

    def _scores(self, model: Module, outputs: Any, batch: Any, loss: Any) -> torch.Tensor:
        """Return scores from the loss's graph if those are correct, else from the outputs."""
        reading, size = self._check.reading, self._form.rows(batch)
        scorer = self._scorer.read_by(reading, self._form.rows)
        if reading.outputs is None:  # the loss is computed within the forward
            return scorer.of_operands(
                CLASSES, *Trained.of(outputs, batch, loss, size).entropy.by_sample(size)
            )
        saved = None
        whole = scorer.name == "loss" and reading.kind == CLASSES and reading.smoothing == 0
        if self._agrees.get(size, whole):
            saved = saved_losses(loss, size)
        if size not in self._agrees or saved is None:
            scores = scorer.from_outputs(model, outputs, batch)
            self._agrees[size] = saved is not None and torch.allclose(
                saved, scores, rtol=1e-4, atol=1e-5, equal_nan=True
            )
            # Use the saved losses at once, so that a resumed run has the same scores.
            if not self._agrees[size]:
                return scores
        return saved

    def batch_end(self, state: State, logger: Logger) -> None:
        """Collect a batch's scores.

        Raises:
            AttentError: The user asked for recording, and not every lesson was scored.
        """
        epoch, self._seen = self._loader.epoch, False
        if epoch is None or self.stopped or (self._fault is None and not self._micro):
            return
        ids = epoch.lesson[0]
        if self._fault is None and sum(map(len, self._micro)) != len(ids):
            fault = (
                f"remember expected a score for each of the batch's {len(ids)} lessons, got "
                f"{sum(map(len, self._micro))}: remove the algorithm that changes batches, or set "
                "remember to never"
            )
            if self._asked:
                raise AttentError(fault)
            self._fault = fault
        time, fine = self._teacher.time(epoch.order.epoch), self._fault is None
        self._pending.append(
            _Lessons(
                ids=ids if fine else ids[:0],
                scores=self._micro if fine else [],
                width=self._loader.batch_size * epoch.units,
                time=time if fine else _STOPPED,
            )
        )
        self._micro = []

    def flush(self) -> None:
        """Put all ranks' scores into the ledger. All ranks must call this together."""
        if not self._pending:
            return
        rows = self._loader.dataset.gathered(_table(self._pending, self._device))
        self._pending = []
        for batch in rows.swapaxes(0, 1):  # (ranks, 3, width) of one time
            ids, scores, times = batch.swapaxes(0, 1).reshape(3, -1)
            real = ids >= 0
            if (times == _STOPPED).any() and not self.stopped:
                self.stopped = True
                if dist.get_global_rank() == 0:
                    fault = self._fault or "another rank could not score a batch"
                    log.warning(
                        "The training losses of samples are no longer recorded, as %s.", fault
                    )
            if real.any():
                self._teacher.remember(
                    *_means(ids[real].astype(np.int64), scores[real]), times[real][0]
                )


def _table(batches: list[_Lessons], device: torch.device) -> torch.Tensor:
    """Ids, scores and times of batches, float64 of shape (batches, 3, width); ids of -1 are none.

    It is made at once, as each operation on a batch alone would cost a step more than its scoring.
    """
    width = max(batch.width for batch in batches)  # the same on all ranks
    table = np.full((len(batches), 3, width), -1.0)
    for row, batch in zip(table, batches, strict=True):
        row[0, : len(batch.ids)] = batch.ids
        row[2] = batch.time
    made = torch.from_numpy(table).to(device)
    scores = [micro for batch in batches for micro in batch.scores]
    if scores:
        made[:, 1][made[:, 0] >= 0] = torch.cat(scores).to(made)
    return made


def _means(ids: NDArray[np.int64], scores: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Average the scores of one sample's pieces that have labels."""
    once, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(once) == len(ids):
        return ids, scores
    empty = is_empty(scores)
    labelled = np.bincount(which[~empty], minlength=len(once))
    sums = np.bincount(which[~empty], scores[~empty], len(once))
    return once, np.where(labelled > 0, sums / np.maximum(labelled, 1), -np.inf)
