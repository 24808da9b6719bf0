"""Micro-batches weighted by their predicted tokens, so that each token weighs the same."""

from typing import Any

import torch
from composer import Event, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.model.batch import predicted
from attent_stream.model.batch_form import BatchForm


class TokenWeights(Effect):
    """Weights the gradient of each micro-batch by its predicted tokens.

    A causal language model's loss is the mean over the predicted tokens of a micro-batch, and
    Composer weights micro-batches by their samples. So a token weighs more among short samples. In
    batches drawn at random that evens out; in sorted ones it does not. Weighted by predicted
    tokens, the gradient is that of the batch's mean.

    Likewise a token weighs more in a batch of short samples. Where batches are of samples of
    similar length, each is also weighted by its tokens, in means of the batches so far.

    Micro-batches of one sample keep Composer's weights: every sample weighs the same in all of
    them, sorted or not.

    Args:
        loader: Has the batches.
        form: Counts what Composer weights micro-batches by.
        batches: Weight batches, too.
    """

    def __init__(self, loader: TeachingDataLoader, form: BatchForm, *, batches: bool) -> None:
        self._loader, self._form, self._batches = loader, form, batches
        # Rows and predicted tokens of all ranks so far, float64 of shape (2,)
        self._sums: Tensor | None = None
        self._expected: Tensor | None = None  # predicted tokens of a batch of weight 1
        self._weight = 0  # of the batch, in Composer's measure
        self._share = 0.0  # of the batch's weight that Composer gives to the micro-batch
        self._begun, self._single = False, False

    def idle(self, event: Event, state: State) -> bool:
        """Without labels for tokens there is nothing to weight."""
        return self._expected is None and event is not Event.BATCH_START

    def batch_start(self, state: State, logger: Logger) -> None:
        """Count the batch's predicted tokens; all ranks call this together."""
        counts = predicted(state.batch)
        total = 0.0 if counts is None else float(counts.sum())
        rows = 0 if counts is None else len(counts)
        self._expected = None
        if self._batches:
            floats = torch.float32 if state.device.name == "mps" else torch.float64
            new = state.device.tensor_to_device(torch.tensor([rows, total], dtype=floats))
            dist.all_reduce(new, reduce_operation="SUM")
            self._sums = new if self._sums is None else self._sums.to(new.device) + new
        epoch = self._loader.epoch
        if not total or (epoch is not None and epoch.units > 1):  # pieces of samples
            return
        try:
            self._weight = self._form.weight(state.batch)
        except ScoreError:
            return
        if self._sums is None:
            self._expected = torch.tensor(total, dtype=torch.float64)
        else:
            self._expected = self._sums[1] / self._sums[0] * rows

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        self._begun = False

    def before_forward(self, state: State, logger: Logger) -> None:
        """See what Composer weights the micro-batch by."""
        counts = predicted(state.batch)
        if not self._begun:
            self._begun, self._single = True, counts is not None and len(counts) == 1
        self._share = self._form.weight(state.batch) / max(1, self._weight)

    def after_loss(self, state: State, logger: Logger) -> None:
        """Weight the micro-batch's gradient. The logged loss stays as it is."""
        counts, loss = predicted(state.batch), state.loss
        if self._single or counts is None or self._expected is None or not self._share:
            return
        if isinstance(loss, Tensor) and loss.requires_grad:
            factor = counts.sum() / self._expected / self._share
            loss.register_hook(lambda gradient: gradient * factor.to(gradient))

    def state_dict(self) -> list[float] | None:
        """Rows and predicted tokens so far."""
        return None if self._sums is None else self._sums.tolist()

    def load_state_dict(self, state: Any) -> None:
        """Go on from ``state_dict``'s state."""
        if state is not None and self._batches:
            self._sums = torch.tensor([float(one) for one in state], dtype=torch.float64)
