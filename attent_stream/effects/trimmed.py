"""Micro-batches of sorted batches, each without the padding that its own samples do not need."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from composer import Event, State
from composer.loggers import Logger
from torch import Tensor
from torch.nn.functional import pad

from attent_stream.arrange.sort import SETTING, Rows, cut_to
from attent_stream.base.errors import ScoreError
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.model.batch import tokens_of
from attent_stream.model.batch_form import BatchForm


class Trimmed(Effect):
    """Cuts micro-batches to their longest sample, and weights each by its predicted tokens.

    A causal language model's loss is the mean over the predicted tokens of a micro-batch. Composer
    weights micro-batches by their samples, so of sorted ones, tokens of short samples would weigh
    more. Weighted by predicted tokens, the gradient is that of the whole batch's mean.

    Args:
        loader: Tells how the current batch's rows are sorted.
        form: Counts the samples of a micro-batch.
        of_tokens: Whether the loss is the mean over predicted tokens.
    """

    def __init__(self, loader: TeachingDataLoader, form: BatchForm, *, of_tokens: bool) -> None:
        self._loader, self._form, self._of_tokens = loader, form, of_tokens
        self._rows: Rows | None = None  # of the batch; None if it is not sorted, or was changed
        self._begin, self._end = 0, 0  # rows of the micro-batch
        # Its share of the batch's weight, 0 if it is not known; and that weight
        self._share, self._whole = 0.0, 1
        self._trained = 0  # positions of the batch that were trained on
        # Positions of the micro-batch, and those that it had before; 0 if it was not cut
        self._positions, self._width = 0, 0

    def idle(self, event: Event, state: State) -> bool:
        """Batches that are not sorted are left as they are."""
        return self._rows is None and (self._told is None or event is not Event.BEFORE_TRAIN_BATCH)

    @property
    def _told(self) -> Rows | None:
        return None if self._loader.epoch is None else self._loader.epoch.rows

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        rows, self._end, self._trained = self._told, 0, 0
        self._rows = rows if rows is not None and _is_sorted(state.batch, rows) else None
        if self._rows is not None:
            self._whole = self._form.weight(state.batch)

    def before_forward(self, state: State, logger: Logger) -> None:
        """Cut the micro-batch."""
        rows, batch = self._rows, state.batch
        self._width, self._share = 0, 0.0
        if rows is None:
            return
        self._begin, self._end = self._end, self._end + self._form.rows(batch)
        self._share = self._form.weight(batch) / max(1, self._whole)
        positions = rows.width_of(self._begin, self._end)
        self._trained += (self._end - self._begin) * positions
        if positions < rows.width:
            state.batch = cut_to(batch, rows.width, positions)
            self._positions, self._width = positions, rows.width

    def after_loss(self, state: State, logger: Logger) -> None:
        """Weight the micro-batch's gradient. The logged loss stays as it is."""
        rows, loss = self._rows, state.loss
        if not (self._of_tokens and self._share and rows is not None and isinstance(loss, Tensor)):
            return
        factor = share(rows, self._begin, self._end) / self._share
        if factor != 1 and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * factor)

    def after_backward(self, state: State, logger: Logger) -> None:
        """Give Composer's train metrics as many positions as the labels have that they know."""
        if self._width and state.train_metrics:
            state.outputs = _widened(state.outputs, self._positions, self._width)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the share of the batch's positions that were trained on."""
        rows = self._rows
        if rows is not None and self._trained:
            every = len(rows.order) * rows.width
            logger.log_metrics({"attent/positions": self._trained / every})


def share(rows: Rows, begin: int, end: int) -> float:
    """A micro-batch's share of the predicted tokens of its batch.

    Args:
        rows: Of the batch.
        begin: First row of the micro-batch.
        end: Row after its last.
    """
    every = int(rows.labels.sum())
    if every == 0:
        return (end - begin) / len(rows.labels)
    return int(rows.labels[begin:end].sum()) / every


def _is_sorted(batch: Any, rows: Rows) -> bool:
    """Whether a batch has these rows still, and no algorithm or callback has changed it."""
    try:
        tokens, present = tokens_of(batch, SETTING)
    except ScoreError:
        return False
    if tokens.shape != (len(rows.order), rows.width):
        return False
    # A batch that is on the GPU already is not waited for
    return present.is_cuda or bool((present.sum(1) == torch.from_numpy(rows.lengths)).all())


def _widened(outputs: Any, positions: int, width: int) -> Any:
    """Outputs with as many positions as before, zeros at those that were left out."""
    if isinstance(outputs, Tensor):
        if outputs.ndim != 3 or outputs.shape[1] != positions:
            return outputs
        return pad(outputs.detach(), (0, 0, 0, width - positions))
    if isinstance(outputs, Mapping) and "logits" in outputs:
        wide = copy(outputs)  # keeps the class of a Hugging Face output
        wide["logits"] = _widened(outputs["logits"], positions, width)
        return wide
    if type(outputs) in (tuple, list):
        return type(outputs)(_widened(one, positions, width) for one in outputs)
    return outputs
