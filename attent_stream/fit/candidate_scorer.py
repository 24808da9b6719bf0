"""Scores candidates with the learner or a proxy, minus a reference's losses if there is one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from composer import State, Time
from composer.core import Precision, get_precision_context
from torch import Tensor
from torch.nn import Module

from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.empty import EMPTY
from attent_stream.base.errors import AttentError, ScoreError
from attent_stream.base.span import Clock
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.fit.aligned_target import AlignedTarget
from attent_stream.fit.open_target import OpenTarget
from attent_stream.fit.run import Run
from attent_stream.fit.scorer import Scorer, known_state
from attent_stream.fit.training_forward import training_forward
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.guard import untouched
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reading import Reading
from attent_stream.model.wrapping import model_name
from attent_stream.score.at_fidelity import ScorerAtFidelity
from attent_stream.score.recipe import Reference
from attent_stream.score.scores import SCORES, Score
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.choice import Choice


@runtime_checkable
class PreparesCandidates(Protocol):
    """An algorithm that changes batches before training, and so candidates before scoring."""

    def prepare_models(self, models: list[Module]) -> None:
        """Make the models that score ready for changed batches."""

    def prepare_candidates(self, state: State, batch: Any) -> Any:
        """A batch on the device as it would be trained on."""


_CHECKED = 4  # samples whose loss is compared with the reading of the outputs
WAYS_OUT = "give score a function (model, batch) -> (B,) tensor, or select: random"


class CandidateScorer:
    """Scores the candidates of one fit.

    Args:
        scoring: Scores with the learner or a proxy.
        reference: Its losses are subtracted from the scores; None for a score that is not relative.
        aligned: The target's gradient, by which samples are scored; None for other scores.
        check: Finds how the learner's outputs are read. None if a function or a proxy scores.
        form: Transforms, counts and splits batches.
        dataset: The data set of the candidates.
        microbatch: Samples in a scoring forward; None for as many as in a training forward.
        batch_size: Samples of this rank in a batch.
        first_batch: Number of batches trained on when the fit starts.
    """

    def __init__(
        self,
        scoring: ScorerAtFidelity,
        reference: Reference | None,
        aligned: AlignedTarget | None,
        check: LossCheck | None,
        *,
        form: BatchForm,
        dataset: TeachingDataset,
        microbatch: int | None,
        batch_size: int,
        first_batch: Time,
    ) -> None:
        self.reference, self.dataset, self._aligned = reference, dataset, aligned
        self._scoring, self._check, self._form = scoring, check, form
        self._microbatch, self._batch_size = microbatch, batch_size
        self._first_batch = first_batch
        self._read_by(None)

    @property
    def models(self) -> list[Module]:
        """The models that forward candidates. The learner may be one of them."""
        return [self._scoring.model, *([] if self.reference is None else [self.reference.model])]

    @property
    def reading(self) -> Reading | None:
        """How the learner's outputs are read; None before it is known."""
        return None if self._check is None else self._check.reading

    @property
    def cost(self) -> float:
        """Cost of scoring one candidate, in full forwards of the learner."""
        return self._scoring.cost + (1.0 if self.reference is not None else 0.0)

    def prepared(self, state: State, candidates: Any) -> Any:
        """A batch of candidates on the device, as it would be trained on. Random states are kept.

        The train loader's ``batch_transforms`` are applied, as to lessons.
        """
        with random_numbers_kept():
            candidates = self._form.transformed(candidates)
        batch = state.device.batch_to_device(candidates)
        for algorithm in state.algorithms:
            if isinstance(algorithm, PreparesCandidates):
                batch = algorithm.prepare_candidates(state, batch)
        return batch

    def __call__(self, state: State, batch: Any, window: tuple[int, int]) -> Tensor:
        """Score a batch of candidates, floating point of shape (B,) on the learner's device.

        Args:
            state: The Trainer's state.
            batch: What ``prepared`` returned.
            window: Epoch and index of the candidates' window.

        Raises:
            ScoreError: No reading of the outputs reproduces the loss, or the scores have the wrong
                shape.
        """
        size = self._samples_at_once(state)
        with self._forwarding(state):
            if self._check is not None:
                self._test_reading(self._check, state, batch, size)
            scores = self._scored(batch, size, window)
            if self.reference is not None:
                losses = self.reference.losses(batch, size)
                scores = torch.where(scores == EMPTY, scores, scores - losses)
        expected = (self._form.rows(batch),)
        if tuple(scores.shape) != expected:
            raise ScoreError(
                f"expected one score for each of the {expected[0]} candidates of a batch, got "
                f"shape {tuple(scores.shape)}: {WAYS_OUT}"
            )
        # A user's function may return them elsewhere. NCCL gathers on the device only.
        return state.device.tensor_to_device(scores)

    def _scored(self, batch: Any, size: int, window: tuple[int, int]) -> Tensor:
        try:
            return self._scoring(batch, size, window)
        except (RuntimeError, TypeError, LookupError) as error:
            if self._check is None or out_of_memory(error) or isinstance(error, AttentError):
                raise
            kind = type(error).__name__
            raise ScoreError(
                f"a forward without gradients and without a loss raised {kind}: {error}; {WAYS_OUT}"
            ) from error

    def begin(self, state: State, epoch: TaughtEpoch) -> None:
        """Test on the batch to be trained on next that candidates can be scored, until it is known.

        All ranks must call this together.

        Raises:
            ScoreError: They cannot.
        """
        # A batch of pieces is not yet taken apart.
        if self._check is not None and self.reading is None and epoch.units == 1:
            batch, size = state.device.batch_to_device(state.batch), self._samples_at_once(state)
            with self._forwarding(state):
                self._test_reading(self._check, state, batch, size)
        if self._aligned is not None and not self._aligned.ready:
            self._refresh(self._aligned, state, (epoch.order.epoch, epoch.segment.index))

    def _test_reading(self, check: LossCheck, state: State, batch: Any, size: int) -> None:
        """Find which outputs and labels the loss uses, and test it again on some later batches."""
        before = check.reading
        size = min(size, _CHECKED)
        check.look(lambda: training_forward(state.model, self._form, batch, size), keep=True)
        if check.reason is not None:
            raise ScoreError(
                f"{model_name(state.model)} cannot be scored by forwards of its own, as "
                f"{check.reason}; {WAYS_OUT}"
            )
        if check.reading != before:
            self._read_by(check.reading)

    def _read_by(self, reading: Reading | None) -> None:
        self._scoring.read_by(reading, self._form)
        if self.reference is not None:
            self.reference.read_by(reading, self._form)

    def learns_from(self, batches: int) -> bool:
        """Whether a proxy is trained on the batch that follows this many batches."""
        return self._scoring.learns_from(batches)

    def learn(self, state: State) -> None:
        """Train the proxy on the current batch. All ranks must call this together."""
        # Float16 gradients would need scaling.
        precision = Precision.FP32 if state.precision == Precision.AMP_FP16 else state.precision
        with get_precision_context(precision, state.precision_config):
            self._scoring.learn(state.device.batch_to_device(state.batch))

    def window_chosen(self, state: State, choice: Choice) -> dict[str, float]:
        """Note that a scored window was chosen; returns metrics by name."""
        if self._aligned is not None:
            self._refresh(self._aligned, state, (choice.window.epoch, choice.window.index + 1))
        keep = choice.kept.mean().item()  # 1 if it was scored only to see what it gains
        found = self._scoring.window_chosen(keep if keep < 1 else 0.5)
        return {f"fidelity/{name}": value for name, value in found.items()}

    def between_windows(self, clock: Clock) -> None:
        """Update the reference's weights when due."""
        if self.reference is not None:
            self.reference.window_chosen(clock)

    def state_dict(self) -> dict[str, Any]:
        """The decision of ``auto``, a trained proxy and the reference; the same on all ranks."""
        return {
            "fidelity": self._scoring.state_dict(),
            "reference": None if self.reference is None else self.reference.state_dict(),
            "target": None if self._aligned is None else self._aligned.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state, without the reference's."""
        if state.get("fidelity"):
            self._scoring.load_state_dict(state["fidelity"])
        if self._aligned is not None:
            self._aligned.load_state_dict(state.get("target"))

    def _refresh(self, aligned: AlignedTarget, state: State, window: tuple[int, int]) -> None:
        """Forward samples of the target with the weights of now."""
        size = self._samples_at_once(state)
        batches = [self.prepared(state, batch) for batch in aligned.drawn(window, size)]
        with self._forwarding(state):
            aligned.refresh(
                batches, lambda batch: self._scoring(batch, size, window), state.optimizers
            )

    @contextmanager
    def _forwarding(self, state: State) -> Iterator[None]:
        """Forward as in training, and leave the model as it was."""
        with (
            untouched(self._scoring.model),
            get_precision_context(state.precision, state.precision_config),
        ):
            yield

    def _samples_at_once(self, state: State) -> int:
        if self._microbatch is not None:
            return self._microbatch
        if (
            state.auto_microbatching
            and self._scoring.sharded
            and state.timestamp.batch == self._first_batch
        ):
            # The size that fits is not known before the first batch, and a sharded model cannot
            # retry here.
            return 1
        size = state.device_train_microbatch_size
        return size if isinstance(size, int) else self._batch_size


def open_scorer(
    state: State,
    loader: TeachingDataLoader,
    run: Run,
    form: BatchForm,
    *,
    target: OpenTarget | None = None,
    resumed: dict[str, Any] | None,
    before: Scorer | None,
) -> CandidateScorer:
    """Build the scorer of a fit.

    Args:
        state: The Trainer's state.
        loader: The train loader.
        run: What AtteNT does in this run.
        form: Transforms, counts and splits batches.
        target: What samples are aligned with, for scores that need it.
        resumed: AtteNT's state from a checkpoint, or None.
        before: The scorer of the previous fit, or None. Without a checkpoint, the state of ``auto``
            or a proxy is carried over, and the reference where the data set is the same.

    Raises:
        FidelityError: The model cannot be scored at this fidelity.
        ScoreError: The model does not support this score, or the state is of another model.
    """
    dataset, relative = loader.dataset, run.relative
    device = state.device.tensor_to_device(torch.empty(())).device
    score: Any = run.score if relative is None else relative.base
    aligned = None
    if target is not None and run.aligns:
        aligned = AlignedTarget(state.model, target, loader, seed=run.teacher.seed)
        score = aligned.score
    scoring = ScorerAtFidelity(
        score,
        state.model,
        head=run.scoring.head,
        fidelity=run.scoring.fidelity,
        device=device,
        full_precision=state.precision == Precision.FP32,
        gather=dataset.gathered,
        ranks=dataset.num_ranks,
        seed=run.teacher.seed,
        keep=run.teacher.keep.start,
    )
    found = SCORES.get(score) if isinstance(score, str) else score
    by_learner = isinstance(found, Score) and scoring.model is state.model
    reference = None
    if relative is not None:
        if isinstance(before, CandidateScorer) and before.dataset is dataset:
            reference = before.reference
        if reference is None:
            settings = relative.parse(run.scoring.reference)
            reference = relative.open(settings, state.model, device)
            reference.load_state_dict(None if resumed is None else resumed.get("reference"))
    scorer = CandidateScorer(
        scoring,
        reference,
        aligned,
        LossCheck(state.model, evaluating=True) if by_learner else None,
        form=form,
        dataset=dataset,
        microbatch=run.scoring.batch,
        batch_size=loader.batch_size,
        first_batch=state.timestamp.batch,
    )
    scorer.load_state_dict(known_state(resumed, before))
    return scorer
