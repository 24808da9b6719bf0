"""What scores candidates over the fits of a run: the learner or a proxy at a fidelity, less the reference of ``learnability``."""

from functools import partial
from typing import Any

import torch
from composer import State, Time
from composer.core import Precision, get_precision_context
from torch import Tensor
from torch.nn import Module

from attent_stream.dataloader import TeachingDataLoader
from attent_stream.gather import gather_ranks
from attent_stream.scoring.at_fidelity import ScorerAtFidelity
from attent_stream.scoring.guard import untouched
from attent_stream.scoring.learnability import Reference
from attent_stream.settings import Settings
from attent_stream.teaching.span import Clock

_PARTS = ("fidelity", "reference")  # of its state


class CandidateScorer:
    """Scores candidates; a fit goes on with what ``auto``, a proxy and a snapshot have become in the one before.

    Args:
        settings: As they were given.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scoring: ScorerAtFidelity | None = None
        self._reference: Reference | None = None
        self._loader: TeachingDataLoader | None = None
        self._first_batch: Time | None = None  # of this fit

    def open(self, state: State, loader: TeachingDataLoader, run: Settings, resumed: dict[str, Any] | None) -> None:
        """Be there for a fit.

        Args:
            state: The run's.
            loader: Whose candidates.
            run: The settings as they are in this run.
            resumed: ``state_dict``'s state of a checkpoint to go on from, or None.

        Raises:
            FidelityError: The model cannot be scored at this fidelity.
            ScoreError: Or not by this score, or the state is of another model.
        """
        known = resumed or self.state_dict()
        same, dataset = self._loader is not None and self._loader.dataset is loader.dataset, loader.dataset
        self._loader, self._first_batch = loader, state.timestamp.batch
        device = state.device.tensor_to_device(torch.empty(())).device
        self._scoring = ScorerAtFidelity(
            run.forwarded_score,
            state.model,
            head=self._settings.head,
            fidelity=self._settings.fidelity,
            device=device,
            full_precision=state.precision == Precision.FP32,
            gather=partial(gather_ranks, ranks=dataset.num_ranks, replication=dataset.replication or 1),
            ranks=dataset.num_ranks,
            seed=self._settings.teacher.seed,
            keep=run.teacher.keep.start,
        )
        if self._settings.reference is not None and (self._reference is None or not same):
            self._reference = Reference(self._settings.reference, state.model, device)
            self._reference.load_state_dict(None if resumed is None else resumed.get("reference"))
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
    def cost(self) -> float:
        """Of scoring a candidate, in full forwards of the learner."""
        return self._scoring.cost + (1.0 if self._reference is not None else 0.0)

    def __call__(self, state: State, batch: Any) -> Tensor:
        """Scores of the candidates that were read, floating point of shape (B,) on the learner's device."""
        batch, size = state.device.batch_to_device(batch), self._samples_at_once(state)
        window = (self._loader.epoch.order.epoch, self._loader.epoch.segment.index + 1)
        with untouched(self._scoring.model), get_precision_context(state.precision, state.precision_config):
            scores = self._scoring(batch, size, window)
            if self._reference is not None:
                scores = scores - self._reference.losses(batch, size)
        return state.device.tensor_to_device(scores)  # a callable's may be elsewhere, and NCCL gathers on the device only

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
        """What ``auto`` has decided and a proxy has learnt, and the reference's weights; the same on all ranks."""
        parts = (None if part is None else part.state_dict() for part in (self._scoring, self._reference))
        return dict(zip(_PARTS, parts, strict=True))

    def _samples_at_once(self, state: State) -> int:
        if self._settings.score_batch is not None:
            return self._settings.score_batch
        if state.auto_microbatching and self._scoring.sharded and state.timestamp.batch == self._first_batch:
            return 1  # what fits is not known before the first batch has been trained on, and here there is no second try
        size = state.device_train_microbatch_size
        return size if isinstance(size, int) else self._loader.batch_size
