"""Logs the loss on samples of the target that are kept aside: does teaching work?"""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from composer import Event, State
from composer.core import get_precision_context
from composer.loggers import Logger
from composer.utils import dist

from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataset import TeachingDataset
from attent_stream.effects.effect import Effect
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.guard import untouched
from attent_stream.model.trained import total_loss
from attent_stream.model.wrapping import is_sharded, unwrap

_SHARE = 0.005  # of the training's cost; a forward is a third of a training step
_ROWS = 20  # batches between two, at least

log = logging.getLogger(__name__)


class TargetLoss(Effect):
    """Logs ``attent/target_loss`` now and then, and after training.

    Args:
        held: Batches of this rank. All ranks have as many.
        samples: Samples of all ranks' batches.
        form: Transforms and splits batches as in training.
        dataset: The train data set.
        spent: Measures the time it takes.
    """

    def __init__(
        self,
        held: Sequence[Any],
        samples: int,
        *,
        form: BatchForm,
        dataset: TeachingDataset,
        spent: Stopwatch,
    ) -> None:
        self._held, self._form, self._dataset, self._spent = held, form, dataset, spent
        self._every = max(_ROWS, int(samples / 3 / _SHARE / dataset.row_size))  # batches
        self._stopped = False

    def idle(self, event: Event, state: State) -> bool:
        """It is due by counts, so that a resume logs at the same batches."""
        batch = int(state.timestamp.batch)
        return event == Event.BATCH_START and (not batch or batch % self._every > 0)

    def batch_start(self, state: State, logger: Logger) -> None:
        """Log it where it is due."""
        self._log(state, logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Log it after training."""
        self._log(state, logger)

    def _log(self, state: State, logger: Logger) -> None:
        if self._stopped:
            return
        with self._spent:
            losses, reason = self._losses(state)
            known = [loss for loss in losses if np.isfinite(loss)]
            mine = [sum(known), float(len(known)), float(bool(reason))]
            values = state.device.tensor_to_device(torch.tensor(mine, dtype=torch.float64))
            total, count, failed = self._dataset.gathered(values).sum(axis=0)
        if failed:
            self._stopped = True  # on all ranks
            if dist.get_global_rank() == 0:
                log.warning("The target's loss is not logged: %s.", reason or "a rank failed")
        elif count:
            logger.log_metrics({"attent/target_loss": float(total / count)})

    def _losses(self, state: State) -> tuple[list[float], str]:
        """This rank's losses; none and a reason where the model has none in eval mode."""
        size = state.device_train_microbatch_size
        losses = []
        try:
            with (
                untouched(state.model),
                get_precision_context(state.precision, state.precision_config),
            ):
                for batch in self._held:
                    # A model may change its batch in place.
                    with random_numbers_kept():
                        whole = self._form.transformed(copy.deepcopy(batch))
                    whole = state.device.batch_to_device(whole)
                    rows = self._form.rows(whole)
                    for part in self._form.parts(whole, size if isinstance(size, int) else rows):
                        outputs = state.model(part)
                        loss = total_loss(unwrap(state.model).loss(outputs, part))
                        losses.append(float("nan") if loss is None else float(loss))
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            if is_sharded(state.model):  # the other ranks wait in the forward
                raise
            return [], f"a forward in eval mode raised {type(error).__name__}: {error}"
        return losses, ""
