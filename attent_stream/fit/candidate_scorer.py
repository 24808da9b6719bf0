"""What scores candidates over the fits of a run: the learner or a proxy at a fidelity, less the
reference of ``learnability``.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from composer import State, Time
from composer.core import Precision, get_precision_context
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.empty import EMPTY
from attent_stream.base.errors import AttentError, ScoreError
from attent_stream.base.gather import gather_ranks
from attent_stream.base.span import Clock
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.fit.settings import Run
from attent_stream.model.batch import describe
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.guard import untouched
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reading import Reading, tensors_of
from attent_stream.model.trained import Trained
from attent_stream.model.wrapping import is_sharded, model_name, unwrap
from attent_stream.score.at_fidelity import ScorerAtFidelity
from attent_stream.score.recipe import Reference
from attent_stream.score.scores import SCORES, Score

_PARTS = ("fidelity", "reference")  # of its state
_CHECKED = 4  # samples whose loss the reading of outputs is held against
WAYS_OUT = "give score a function (model, batch) -> (B,) tensor, or select: random"


class CandidateScorer:
    """Scores candidates. Another fit goes on with what ``auto``, a proxy and a reference have
    become in the fit before.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._scoring: ScorerAtFidelity | None = None
        self._reference: Reference | None = None
        self._loader: TeachingDataLoader | None = None
        self._first_batch: Time | None = None  # of this fit
        self._form = BatchForm()
        # None if a function or a proxy is asked, not the learner's outputs.
        self._check: LossCheck | None = None

    def open(
        self,
        state: State,
        loader: TeachingDataLoader,
        run: Run,
        resumed: dict[str, Any] | None,
        form: BatchForm,
    ) -> None:
        """Be there for a fit.

        Args:
            state: The Trainer's.
            loader: Has the candidates.
            run: What AtteNT does in this run.
            resumed: ``state_dict``'s state of a checkpoint to go on from, or None.
            form: Transforms, counts and splits batches.

        Raises:
            FidelityError: The model cannot be scored at this fidelity.
            ScoreError: The model cannot be scored by this score, or the state is of another model.
        """
        known = resumed or self.state_dict()
        dataset, relative = loader.dataset, run.relative
        same = self._loader is not None and self._loader.dataset is dataset
        self._run, self._loader, self._first_batch = run, loader, state.timestamp.batch
        self._form, self._check = form, None
        device = state.device.tensor_to_device(torch.empty(())).device
        score = run.score if relative is None else relative.base
        self._scoring = ScorerAtFidelity(
            score,
            state.model,
            head=run.scoring.head,
            fidelity=run.scoring.fidelity,
            device=device,
            full_precision=state.precision == Precision.FP32,
            gather=partial(
                gather_ranks, ranks=dataset.num_ranks, replication=dataset.replication or 1
            ),
            ranks=dataset.num_ranks,
            seed=run.teacher.seed,
            keep=run.teacher.keep.start,
        )
        named = isinstance(score, str) and isinstance(SCORES.get(score), Score)
        if named and self._scoring.model is state.model:  # and not a proxy
            self._check = LossCheck(state.model, evaluating=True)
        if relative is not None and (self._reference is None or not same):
            settings = relative.parse(run.scoring.reference)
            self._reference = relative.open(settings, state.model, device)
            self._reference.load_state_dict(None if resumed is None else resumed.get("reference"))
        self._scoring.read_by(None, form)
        if self._reference is not None:
            self._reference.read_by(None, form)
        if known.get("fidelity"):
            self._scoring.load_state_dict(known["fidelity"])

    def forget(self) -> None:
        """Begin with nothing."""
        self._scoring, self._reference = None, None

    @property
    def models(self) -> list[Module]:
        """That forward candidates; the learner may be one of them."""
        return [self._scoring.model, *([] if self._reference is None else [self._reference.model])]

    @property
    def reading(self) -> Reading | None:
        """How the learner's outputs are read, once candidates were scored."""
        return None if self._check is None else self._check.reading

    @property
    def cost(self) -> float:
        """Of scoring a candidate, in full forwards of the learner."""
        return self._scoring.cost + (1.0 if self._reference is not None else 0.0)

    def transformed(self, batch: Any) -> Any:
        """Candidates after the train loader's ``batch_transforms``, as lessons are; random numbers
        stay as they were.
        """
        with random_numbers_kept():
            return self._form.transformed(batch)

    def __call__(self, state: State, batch: Any) -> Tensor:
        """Scores of the candidates that were read, floating point of shape (B,) on the learner's
        device.

        Args:
            state: Of the run.
            batch: On the device, as ``transformed``.

        Raises:
            ScoreError: No reading of the model's outputs gives its loss.
        """
        size = self._samples_at_once(state)
        window = (self._loader.epoch.order.epoch, self._loader.epoch.segment.index + 1)
        with (
            untouched(self._scoring.model),
            get_precision_context(state.precision, state.precision_config),
        ):
            if self._check is not None:
                self._hold_against_loss(state, batch, size)
            scores = self._scored(batch, size, window)
            if self._reference is not None:
                losses = self._reference.losses(batch, size)
                scores = torch.where(scores == EMPTY, scores, scores - losses)
        expected = (self._form.rows(batch),)
        if tuple(scores.shape) != expected:
            raise ScoreError(
                f"expected one score for each of the {expected[0]} candidates of a batch, got "
                f"shape {tuple(scores.shape)}: {WAYS_OUT}"
            )
        # A callable's may be elsewhere, and NCCL gathers on the device only
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

    def try_out(self, state: State) -> None:
        """See on the batch that is about to be trained on whether candidates can be scored; all
        ranks together.

        Raises:
            ScoreError: They cannot.
        """
        if self._check is not None and self.reading is None:
            batch, size = state.device.batch_to_device(state.batch), self._samples_at_once(state)
            with (
                untouched(self._scoring.model),
                get_precision_context(state.precision, state.precision_config),
            ):
                self._hold_against_loss(state, batch, size)

    def _hold_against_loss(self, state: State, batch: Any, size: int) -> None:
        """Find out, and see again now and then, which outputs and labels the model's loss is
        computed from.
        """
        check = self._check
        before = check.reading
        check.look(lambda: self._trained(state, batch, min(size, _CHECKED)), keep=True)
        if check.reason is not None:
            raise ScoreError(
                f"{model_name(state.model)} cannot be scored by forwards of its own, as "
                f"{check.reason}; {WAYS_OUT}"
            )
        if check.reading != before:
            self._scoring.read_by(check.reading, self._form)
            if self._reference is not None:
                self._reference.read_by(check.reading, self._form)

    def _trained(self, state: State, batch: Any, size: int) -> Trained:
        try:
            return self._forward_with_loss(state, batch, size)
        except RuntimeError as error:
            # All ranks of a sharded model would have to try again together.
            if size == 1 or is_sharded(state.model) or not out_of_memory(error):
                raise
        return self._forward_with_loss(state, batch, 1)

    def _forward_with_loss(self, state: State, batch: Any, size: int) -> Trained:
        # A model may change its batch in place
        part = copy.deepcopy(self._form.parts(batch, size)[0])
        rows = self._form.rows(part)
        model = (
            state.model.module if isinstance(state.model, DistributedDataParallel) else state.model
        )
        # What the loss's graph saves says which labels it takes. A sharded model's forward may not
        # be left without its backward. A compiled model would be compiled once more for this one
        # forward.
        graph = not is_sharded(model)
        with torch.set_grad_enabled(graph), torch.compiler.set_stance("force_eager"):
            try:
                outputs = model(part)
                loss = unwrap(model).loss(outputs, part)
            except (KeyError, ValueError, TypeError) as error:
                if isinstance(part, Mapping) and not isinstance(part.get("labels"), Tensor):
                    raise ScoreError(
                        f"the batch has no tensor 'labels', it has {describe(part)}"
                    ) from error
                raise
            if isinstance(part, Mapping) and "labels" in part and not tensors_of(outputs, rows):
                # A head that is fused with the loss gives its logits where there are no labels.
                with suppress(KeyError, ValueError, TypeError):
                    outputs = model({key: value for key, value in part.items() if key != "labels"})
        return Trained.of(outputs, part, loss, rows)

    def learns_from(self, batches: int) -> bool:
        """Whether there is a proxy that learns from the batch after so many."""
        return self._scoring is not None and self._scoring.learns_from(batches)

    def learn(self, state: State) -> None:
        """Let it; all ranks call this together."""
        # Float16 would need its gradients scaled.
        precision = Precision.FP32 if state.precision == Precision.AMP_FP16 else state.precision
        with get_precision_context(precision, state.precision_config):
            self._scoring.learn(state.device.batch_to_device(state.batch))

    def window_chosen(self, keep: float) -> dict[str, float]:
        """Say that a scored window is chosen, with this share kept; metrics by name."""
        return self._scoring.window_chosen(keep)

    def between_windows(self, clock: Clock) -> None:
        """Take the reference's weights anew where it is time."""
        if self._reference is not None:
            self._reference.window_chosen(clock)

    def state_dict(self) -> dict[str, Any]:
        """What ``auto`` has decided and a proxy has learnt, and the reference's weights; the same
        on all ranks.
        """
        parts = (
            None if part is None else part.state_dict() for part in (self._scoring, self._reference)
        )
        return dict(zip(_PARTS, parts, strict=True))

    def _samples_at_once(self, state: State) -> int:
        if self._run.scoring.batch is not None:
            return self._run.scoring.batch
        if (
            state.auto_microbatching
            and self._scoring.sharded
            and state.timestamp.batch == self._first_batch
        ):
            # What fits is not known before the first batch has been trained on, and here there is
            # no second try
            return 1
        size = state.device_train_microbatch_size
        return size if isinstance(size, int) else self._loader.batch_size
