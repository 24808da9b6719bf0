"""Runs a job in Composer's Trainer, and holds each score against brute force as it is made."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback, DataSpec, Event
from field_jobs import BATCH, Job, Twin
from numpy.typing import NDArray

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.fit.candidate_scorer import CandidateScorer
from attent_stream.teach.teacher import Teacher
from attent_stream.window.decision import ALL

EPOCHS = 2
TINY = 0.01  # a score below this is compared as if it were of this size


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores made at once.

    Args:
        by: ``lessons`` or ``candidates``.
        score: Its name.
        values: The scores.
        expected: By brute force, or None where the job knows none.
    """

    by: str
    score: str
    values: NDArray
    expected: NDArray | None

    def difference(self, times: float) -> float:
        """The largest, as a share of the score's size; infinite: nothing to compare with."""
        if self.expected is None:
            return float("inf")
        factors = {1.0, times} if self.score == "loss" else {1.0}
        return min(_apart(self.values, factor * self.expected) for factor in factors)


@dataclass(kw_only=True)
class Result:
    """What came of a run.

    Attributes:
        losses: Of its batches.
        error: That ended it, or None.
        warnings: Of the package's loggers.
        scored: All scores that were made, in order.
        ledger: What is remembered of each sample in the end, or None where nothing is.
        steps: Of the optimizer.
        taught: Whether any window was not kept whole.
        arranged: Names of its arrangements.
    """

    losses: list[float] = field(default_factory=list)
    error: Exception | None = None
    warnings: list[str] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    ledger: NDArray | None = None
    steps: int = 0
    taught: bool = False
    arranged: list[str] = field(default_factory=list)

    def difference(self, job: Job) -> float | None:
        """The largest of any score from brute force, None where none was made."""
        return max((some.difference(job.times) for some in self.scored), default=None)


def run_job(
    job: Job, folder: Path, algorithm: AtteNT | None = None, epochs: int = EPOCHS
) -> Result:
    """Train a job, with an algorithm or without.

    Args:
        job: Whose data set is in ``folder``.
        folder: Of the data set.
        algorithm: One of its own.
        epochs: How long.
    """
    result, model = Result(), job.model()
    dataset = TeachingDataset(
        local=str(folder), batch_size=BATCH, window=4, gap=1, shuffle=True, num_canonical_nodes=1
    )
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=job.collate)
    optimizer = torch.optim.SGD(
        [param for param in model.parameters() if param.requires_grad], lr=0.05
    )
    optimizer.register_step_post_hook(lambda *_: _count(result))
    watch = _Watch(job, result, algorithm, loader)
    with _heard(result), watch.listening():
        try:
            trainer = Trainer(
                model=model,
                train_dataloader=DataSpec(loader, **job.spec) if job.spec else loader,
                optimizers=optimizer,
                max_duration=f"{epochs}ep",
                progress_bar=False,
                algorithms=[algorithm] if algorithm else [],
                callbacks=[watch],
                seed=5,
            )
            trainer.fit()
            trainer.close()
        except Exception as error:  # whatever it is, the test judges it
            result.error = error
    taught = algorithm is not None and algorithm.fit is not None
    ledger = algorithm.fit.teacher.ledger if taught else None
    result.arranged = algorithm.fit.run.teacher.arrangements.names if taught else []
    result.ledger = None if ledger is None else ledger.recall(np.arange(dataset.num_samples))
    return result


class _Watch(Callback):
    """Sees batches, choices and scores."""

    def __init__(
        self, job: Job, result: Result, algorithm: AtteNT | None, loader: TeachingDataLoader
    ) -> None:
        self._job, self._result, self._algorithm, self._loader = job, result, algorithm, loader
        self._twin: Twin | None = None
        self._last: dict[
            int, float
        ] = {}  # what each sample's recorded score must be, by the batch it was in last

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START and self._algorithm is not None:
            choice = self._algorithm.last_choice
            self._result.taught |= choice is not None and choice.decision.by != ALL
            fit = self._algorithm.fit
            brute = self._job.brute(fit.run.score)
            recorded = fit.recorder is not None and self._loader.epoch is not None
            if brute is not None and recorded:
                ids = self._loader.epoch.lesson[0].tolist()
                self._last |= dict(
                    zip(ids, self._brute(brute, state.model, state.batch), strict=True)
                )
        elif event == Event.BATCH_END:
            self._result.losses.append(float(state.total_loss_dict["loss/train/total"]))

    def _brute(self, brute, model, batch):
        self._twin = self._twin or Twin(model)
        return self._twin(brute, model, batch)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While it trains, scores are seen as they are made."""
        remember, score = Teacher.remember, CandidateScorer.__call__

        def remembered(teacher, ids, scores, time):
            if ids.ndim > 1:  # a window's candidates, seen as they were scored
                return remember(teacher, ids, scores, time)
            name = self._algorithm.fit.run.score
            known = self._job.brute(name) is not None
            expected = np.array([self._last[sample] for sample in ids.tolist()]) if known else None
            self._result.scored.append(
                Scored(by="lessons", score=name, values=np.array(scores), expected=expected)
            )
            return remember(teacher, ids, scores, time)

        def candidates(scorer, state, batch, window):
            scores, name = score(scorer, state, batch, window), self._algorithm.fit.run.score
            brute = self._job.brute(name)
            expected = None if brute is None else self._brute(brute, state.model, batch)
            self._result.scored.append(
                Scored(by="candidates", score=name, values=scores.numpy(), expected=expected)
            )
            return scores

        with (
            mock.patch.object(Teacher, "remember", remembered),
            mock.patch.object(CandidateScorer, "__call__", candidates),
        ):
            yield


def _apart(values: NDArray, expected: NDArray) -> float:
    finite = np.isfinite(expected)
    if (np.isfinite(values) != finite).any():
        return float("inf")
    gaps = np.abs(values - expected)[finite] / np.maximum(np.abs(expected[finite]), TINY)
    return float(gaps.max(initial=0.0))


def _count(result: Result) -> None:
    result.steps += 1


@contextlib.contextmanager
def _heard(result: Result) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record):
            result.warnings.append(record.getMessage())

    handler, log = Handler(level=logging.WARNING), logging.getLogger("attent_stream")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
