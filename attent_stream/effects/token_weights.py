"""Micro-batches weighted by their predicted tokens, so that each token weighs the same."""

from contextlib import suppress
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
        self._fresh = False  # the batch was not begun with yet
        # Predicted tokens of a batch of weight 1, and what Composer divides weights by
        self._expected: Tensor | float = 0.0
        self._whole: Tensor | float = 0.0
        self._known = False  # whether both are
        self._begun, self._single = False, False
        self._counts: Tensor | None = None  # of the micro-batch
        self._weight = 0  # of the micro-batch, in Composer's measure

    def idle(self, event: Event, state: State) -> bool:
        """Without labels for tokens there is nothing to weight."""
        begins = event in (Event.BATCH_START, Event.BEFORE_TRAIN_BATCH)
        return not begins and not self._known

    def batch_start(self, state: State, logger: Logger) -> None:
        """A batch comes, which may still be changed."""
        self._fresh = True

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed. All ranks call this together."""
        self._begun = False
        if not self._fresh:  # Composer leaves a micro-batch in the place of a batch that failed
            return
        self._fresh = False
        counts, weight = predicted(state.batch), 0
        rows, tokens = (0, 0.0) if counts is None else (len(counts), float(counts.sum()))
        with suppress(ScoreError):  # of a batch that cannot be counted
            weight = self._form.weight(state.batch)
        self._expected, self._whole = tokens, float(weight)
        if self._batches:
            self._expected, self._whole = self._of_ranks(state, rows, tokens, weight)
        epoch = self._loader.epoch
        whole_samples = epoch is None or epoch.units == 1
        self._known = bool(tokens and weight and whole_samples)

    def before_forward(self, state: State, logger: Logger) -> None:
        """Count the micro-batch, as the model may take its labels away."""
        self._counts = predicted(state.batch)
        if not self._begun:
            self._begun = True
            self._single = self._counts is not None and len(self._counts) == 1
        self._weight = self._form.weight(state.batch)

    def after_loss(self, state: State, logger: Logger) -> None:
        """Weight the micro-batch's gradient. The logged loss stays as it is."""
        counts, loss = self._counts, state.loss
        if self._single or counts is None or not self._weight:
            return
        if isinstance(loss, Tensor) and loss.requires_grad:
            factor = counts.sum() / self._expected * (self._whole / self._weight)
            loss.register_hook(lambda gradient: gradient * factor.to(gradient))

    def state_dict(self) -> list[float] | None:
        """Rows and predicted tokens so far."""
        return None if self._sums is None else self._sums.tolist()

    def load_state_dict(self, state: Any) -> None:
        """Go on from ``state_dict``'s state."""
        if state is not None and self._batches:
            self._sums = torch.tensor([float(one) for one in state], dtype=torch.float64)

    def _of_ranks(
        self, state: State, rows: int, tokens: float, weight: int
    ) -> tuple[Tensor | float, Tensor | float]:
        """Predicted tokens of an average batch so far, and mean weight of the ranks' batches.

        On one rank they are numbers. On several they stay on the device, which is not waited for.
        """
        ranks = dist.get_world_size()
        new = torch.tensor([rows, tokens, weight], dtype=torch.float64)
        if ranks > 1:
            new = state.device.tensor_to_device(new)
            dist.all_reduce(new, reduce_operation="SUM")
        self._sums = new[:2] if self._sums is None else self._sums.to(new.device) + new[:2]
        expected = self._sums[1] / self._sums[0].clamp(min=1) * new[0] / ranks
        return (expected, new[2] / ranks) if ranks > 1 else (float(expected), float(weight))
