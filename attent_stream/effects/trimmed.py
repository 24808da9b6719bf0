"""Sorted batches, whose micro-batches do without the padding that their own samples do not need."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from composer import Event, State
from composer.loggers import Logger
from torch import Tensor
from torch.nn.functional import pad

from attent_stream.arrange.sort import Rows, cut_to, rows_by_length, sorted_by, uncuttable
from attent_stream.base.errors import ScoreError
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.model.batch_form import BatchForm


class Trimmed(Effect):
    """Sorts the rows of each batch by length, and cuts micro-batches to their longest sample.

    A batch of one micro-batch is cut, and stays in order.

    A batch is left as it is if it cannot be cut, if micro-batches may not be consecutive rows of
    it, and if it has a sample without any label: the loss of a micro-batch of these is NaN.

    Args:
        loader: Is told of the order of rows.
        form: Counts the samples of a batch.
    """

    def __init__(self, loader: TeachingDataLoader, form: BatchForm) -> None:
        self._loader, self._form = loader, form
        self._rows: Rows | None = None  # of the batch; None if it is left as it is
        self._given: Any = None  # the batch, until it is begun with
        self._begin, self._end = 0, 0  # rows of the micro-batch
        self._trained = 0  # positions of the batch that were trained on
        self._whole: Any = None  # the micro-batch, if it was cut, and its positions without those
        self._positions = 0

    @property
    def sorts(self) -> bool:
        """Whether the micro-batches of the current batch are no random parts of it."""
        return self._rows is not None

    def idle(self, event: Event, state: State) -> bool:
        """A batch that is left as it is needs nothing."""
        return self._rows is None and event is not Event.BATCH_START

    def batch_start(self, state: State, logger: Logger) -> None:
        """Sort the batch, as the Trainer is going to split it."""
        self._rows = self._sortable(state.batch)
        if self._rows is None:
            return
        size = state.device_train_microbatch_size
        if isinstance(size, int) and size >= len(self._rows.order) and not state.auto_microbatching:
            self._rows = self._rows.unsorted  # one micro-batch
        try:
            state.batch = sorted_by(state.batch, self._rows)
        except TypeError:  # a mapping that cannot be changed
            self._rows = None
            return
        self._given = dict(state.batch)
        if self._loader.epoch is not None and not self._rows.in_order:
            self._loader.epoch.reorder(self._rows.order)

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        given, self._given = self._given, None
        if given is not None and not _same(state.batch, given):  # another algorithm changed it
            self._rows = None
        self._end, self._trained, self._whole = 0, 0, None

    def before_forward(self, state: State, logger: Logger) -> None:
        """Cut the micro-batch."""
        rows, batch = self._rows, state.batch
        self._whole = None
        if rows is None:
            return
        tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
        count = len(tokens) if isinstance(tokens, Tensor) else 0
        self._begin, self._end = self._end, self._end + count
        positions = rows.width_of(self._begin, self._end)
        cuts = (
            isinstance(tokens, Tensor)
            and tokens.shape == (count, rows.width)
            and self._end <= len(rows.order)
            and not uncuttable(batch, count, rows.width)
        )
        self._trained += count * (positions if cuts else rows.width)
        if cuts and positions < rows.width:
            self._whole, self._positions = batch, positions
            state.batch = cut_to(batch, positions)

    def after_backward(self, state: State, logger: Logger) -> None:
        """Give Composer's train metrics as many positions as the labels have that they know."""
        if self._whole is not None and state.train_metrics and self._rows is not None:
            state.outputs = _widened(state.outputs, self._positions, self._rows.width)
            state.batch = self._whole
        self._whole = None

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the share of the batch's positions that were trained on."""
        rows = self._rows
        if rows is not None and self._trained:
            every = len(rows.order) * rows.width
            logger.log_metrics({"attent/positions": self._trained / every})

    def _sortable(self, batch: Any) -> Rows | None:
        epoch = self._loader.epoch
        if not self._form.splits_in_order or self._loader.fault:
            return None
        if epoch is not None and epoch.units > 1:  # pieces of samples
            return None
        try:
            rows = rows_by_length(batch)
            count = self._form.rows(batch)
        except ScoreError:  # another form than that of the samples that were checked
            return None
        samples = count if epoch is None else len(epoch.lesson[0])
        fits = len(rows.order) == count == samples
        return rows if fits and rows.labels.all() else None


def _same(batch: Any, given: Mapping[str, Any]) -> bool:
    """Whether a batch has the tensors that it was given."""
    return isinstance(batch, Mapping) and all(
        batch.get(name) is value for name, value in given.items()
    )


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
