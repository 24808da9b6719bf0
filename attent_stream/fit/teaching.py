"""Teaching: candidates are scored and the next window is chosen, before each batch."""

import logging
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from composer import Event, State
from composer.loggers import Logger
from composer.utils import dist
from numpy.typing import NDArray

from attent_stream.base.errors import ScoreError
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.fit.scorer import Scorer
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED
from attent_stream.window.metrics import choice_metrics

# Called with each choice, and the batches that were trained on until then
Listener = Callable[[Choice, int], None]

log = logging.getLogger(__name__)


class Teaching(Effect):
    """Scores candidates as they come, and chooses the next window when it is due.

    Args:
        loader: Has the candidates.
        teacher: Chooses.
        scorer: Scores candidates; None if they are never scored.
        counts: Counts of the run by name, which are added to.
        flush: Puts what has been recorded into the ledger; all ranks call it together.
        spent: Measures the time it takes.
    """

    def __init__(
        self,
        loader: TeachingDataLoader,
        teacher: Teacher,
        scorer: Scorer | None,
        *,
        counts: dict[str, int],
        flush: Callable[[], None],
        spent: Stopwatch,
    ) -> None:
        self.last_choice: Choice | None = None
        self.listeners: list[Listener] = []
        self._loader, self._teacher, self._scorer = loader, teacher, scorer
        self._counts, self._flush, self._spent = counts, flush, spent
        self._told = False  # that samples are memorized

    def idle(self, event: Event, state: State) -> bool:
        """Only some scorers look at the batches that are trained on."""
        if event != Event.BATCH_START:
            return False
        scorer = self._scorer
        return scorer is None or not scorer.learns_from(int(state.timestamp.batch))

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """Score the candidates that were read, and choose the next window if it is due.

        Raises:
            ScoreError: The model cannot be scored.
        """
        loader, epoch, scorer = self._loader, self._loader.epoch, self._scorer
        if epoch is None:
            return
        if epoch.segment.index:  # an epoch's first choice is taken below
            # What was chosen while training went on, before the next candidates are scored
            self._chosen(epoch.take_choices(), state, logger)
        with self._spent:
            if scorer is not None and self._teacher.uses_scores:
                scorer.begin(state, epoch)
            if epoch.due:
                self._flush()
            window = (epoch.order.epoch, epoch.segment.index + 1)
            choices = loader.teach(
                partial(self._scores, state, window), state.device.tensor_to_device
            )
        self._chosen(choices, state, logger)

    def _chosen(self, choices: list[Choice], state: State, logger: Logger) -> None:
        loader, scorer = self._loader, self._scorer
        if loader.epoch is None or not choices:
            return
        order = loader.epoch.order
        for choice in choices:
            self._log(choice, order.stream_starts, logger)
            for listener in self.listeners:
                listener(choice, int(state.timestamp.batch))
            if scorer is not None and choice.decision.by == SCORED:
                with self._spent:
                    found = scorer.window_chosen(state, choice)
                logger.log_metrics({f"attent/{name}": v for name, v in found.items()})
                self._teacher.scoring_costs(scorer.cost)
        self._tell_memorized(logger)
        if scorer is not None:
            scorer.between_windows(self._teacher.clock(0, order.epoch, 0.0))

    def batch_start(self, state: State, logger: Logger) -> None:
        """Let a proxy learn from the batch."""
        if self._scorer is not None:
            with self._spent:
                self._scorer.learn(state)

    def _tell_memorized(self, logger: Logger) -> None:
        teacher = self._teacher
        if teacher.settings.most_memorized == inf or not teacher.memorized:
            return
        logger.log_metrics({"attent/memorized": teacher.memorized})
        if teacher.memorizes and not self._told:
            self._told = True
            if dist.get_global_rank() == 0:
                log.info(
                    "AtteNT: samples are memorized (those that come again have a %.0f%% lower loss "
                    "than new ones had): nothing is dropped while that is so.",
                    100 * teacher.memorized,
                )

    def _scores(self, state: State, window: tuple[int, int], candidates: Any) -> torch.Tensor:
        if self._scorer is None:
            raise ScoreError("expected no candidates to score, as this fit has no scorer")
        return self._scorer(state, self._scorer.prepared(state, candidates), window)

    def _log(self, choice: Choice, stream_starts: NDArray[np.int64], logger: Logger) -> None:
        metrics, counts = choice.measured or choice_metrics(choice, stream_starts)
        counts = dict(counts)
        if counts["empty"] and not self._counts["empty"] and dist.get_global_rank() == 0:
            log.warning(
                "%d of a window's %d samples have no label: nothing can be learnt from them, so "
                "they are chosen last (attent/empty counts them).",
                counts["empty"],
                choice.window.ids.size,
            )
        if self._scorer is None or not self._scorer.models:
            counts["candidates"] = 0  # counts those that a model has forwarded
        for name, count in counts.items():
            self._counts[name] += count
        self.last_choice = choice
        logger.log_metrics({f"attent/{k}": v for k, v in {**metrics, **self._counts}.items()})
