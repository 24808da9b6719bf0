"""The recorder: per-sample scores of the training forwards, on their way into the ledger at no
extra pass.
"""

import logging
from typing import Any

import numpy as np
import torch
from composer import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from numpy.typing import NDArray
from torch.nn import Module, functional

from attent_stream.base.empty import is_empty
from attent_stream.base.errors import AttentError, ScoreError, in_words
from attent_stream.base.gather import gather_ranks
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
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

_STOPPED = -np.inf  # in place of a time: a rank could not score a batch

log = logging.getLogger(__name__)


class Recorder(Callback):
    """Scores lessons by their own training forwards, and gathers all ranks' scores once a window.

    Args:
        scorer: Scores outputs.
        loader: Tells which samples a batch has.
        teacher: Remembers.
        check: Finds out how the model's outputs are read, by its loss.
        form: Counts the samples of a micro-batch.
        always: Whether lessons of all windows are recorded, or only of those that are kept whole.
        auto: Whether Composer looks for the size of a micro-batch.
        asked: Whether recording was asked for by name: then what cannot be recorded is an error.
            If not, the log says so once, and nothing is recorded any more.
        spent: Measures the time it takes.

    Attributes:
        stopped: Whether recording has ended on all ranks, because one could not score a batch.
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
        # Size of a micro-batch -> whether its loss holds the losses of its samples.
        self._agrees: dict[int, bool] = {}
        self._seen = False  # this batch's first micro-batch
        self._fault: str | None = None  # why this rank stopped
        self._device = torch.device("cpu")  # of its scores
        self._micro: list[torch.Tensor] = []  # scores of this batch, a tensor a micro-batch
        # Ids, scores and times of lessons that are not in the ledger yet: (3, batch_size * units).
        self._pending: list[torch.Tensor] = []

    @property
    def reading(self) -> Reading | None:
        """How the model's outputs are read; None before the first batch, and if its loss cannot be
        computed from them.
        """
        return self._check.reading

    def stop(self) -> None:
        """Record nothing any more; all ranks call this together."""
        self.stopped, self._micro = True, []

    def epoch_start(self, state: State, logger: Logger) -> None:
        """Empty what is pending."""
        self.flush()

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        self._micro, self._seen = [], False

    def after_loss(self, state: State, logger: Logger) -> None:
        """Score a micro-batch, before its backward.

        Raises:
            ScoreError: Recording was asked for, and no reading of the outputs gives the loss.
        """
        with self._spent:
            self.loss_done(state.model, state.outputs, state.batch, state.loss)

    def loss_done(self, model: Module, outputs: Any, batch: Any, loss: Any) -> None:
        """See ``after_loss``."""
        epoch = self._loader.epoch
        if epoch is None or self.stopped:
            return
        # No choice: what follows the last full row, which is kept whole.
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
                # Where memory runs out, Composer takes smaller micro-batches.
                if self._asked or (self._auto and out_of_memory(error)):
                    raise
                self._fault = in_words(error)

    def _look(self, model: Module, outputs: Any, batch: Any, loss: Any) -> None:
        """Hold the reading of outputs against the loss, on a batch's first microbatch; all ranks
        together.
        """
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
            f"{model_name(model)}'s training losses of single samples cannot be recorded, as "
            f"{fault}"
        )
        if self._asked:
            raise ScoreError(f"{told}: set remember to never, or leave it away")
        if dist.get_global_rank() == 0:
            log.warning(
                "%s: training goes on without them. To teach all the same give score a function "
                "(model, batch) -> (B,) tensor; "
                "remember: never silences this.",
                told,
            )

    def _scores(self, model: Module, outputs: Any, batch: Any, loss: Any) -> torch.Tensor:
        """From the loss where it has them, once it was seen that they are those of the outputs;
        else from these.
        """
        reading, size = self._check.reading, self._form.rows(batch)
        scorer = self._scorer.read_by(reading, self._form.rows)
        if reading.outputs is None:  # that its labels are the batch's was seen with the reading
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
            # And if so, a run that is resumed here goes on as one that was not
            if not self._agrees[size]:
                return scores
        return saved

    def batch_end(self, state: State, logger: Logger) -> None:
        """Take in a batch's scores.

        Raises:
            AttentError: Recording was asked for, and not every lesson of the batch was scored.
        """
        epoch = self._loader.epoch
        if self.stopped or (self._fault is None and not self._micro):
            return
        width = self._loader.batch_size * epoch.units
        ids = epoch.lesson[0]
        if self._fault is None and sum(map(len, self._micro)) != len(ids):
            fault = (
                f"remember needs a score for each of the batch's {len(ids)} lessons and the "
                "training "
                "forward gave "
                f"{sum(map(len, self._micro))}: leave away the algorithm that changes batches, or "
                "set remember to never"
            )
            if self._asked:
                raise AttentError(fault)
            self._fault = fault
        row = torch.full((3, width), -1.0, dtype=torch.float64, device=self._device)
        if self._fault is None:
            row[0, : len(ids)] = torch.from_numpy(ids).to(row.device)
            row[1, : len(ids)] = torch.cat([scores.to(row) for scores in self._micro])
        row[2] = self._teacher.time(epoch.order.epoch) if self._fault is None else _STOPPED
        self._pending.append(row)
        self._micro = []

    def flush(self) -> None:
        """Put what all ranks have recorded into the ledger; they call this together."""
        if not self._pending:
            return
        dataset = self._loader.dataset
        width = max(row.shape[1] for row in self._pending)  # the same on all ranks
        pending = torch.stack(
            [functional.pad(row, (0, width - row.shape[1]), value=-1.0) for row in self._pending]
        )
        rows = gather_ranks(pending, ranks=dataset.num_ranks, replication=dataset.replication or 1)
        self._pending = []
        for batch in rows.swapaxes(0, 1):  # (ranks, 3, batch_size), all of one time
            ids, scores, times = batch.swapaxes(0, 1).reshape(3, -1)
            real = ids >= 0
            if (times == _STOPPED).any() and not self.stopped:
                self.stopped = True
                if dist.get_global_rank() == 0:
                    fault = self._fault or "another rank could not score a batch"
                    log.warning(
                        "Training losses of single samples are not recorded any more, as %s.", fault
                    )
            if real.any():
                self._teacher.remember(
                    *_means(ids[real].astype(np.int64), scores[real]), times[real][0]
                )


def _means(ids: NDArray[np.int64], scores: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Of pieces of one sample the mean, of those with labels; of each sample once they are as they
    were.
    """
    once, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(once) == len(ids):
        return ids, scores
    empty = is_empty(scores)
    labelled = np.bincount(which[~empty], minlength=len(once))
    sums = np.bincount(which[~empty], scores[~empty], len(once))
    return once, np.where(labelled > 0, sums / np.maximum(labelled, 1), -np.inf)
