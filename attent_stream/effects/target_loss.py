"""Logs the loss on samples of the target that are kept aside: does teaching work?"""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from composer import Callback, State
from composer.core import get_precision_context
from composer.loggers import Logger
from composer.utils import dist

from attent_stream.base.gather import gather_ranks
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.model.guard import untouched
from attent_stream.model.trained import total_loss
from attent_stream.model.wrapping import unwrap

_SHARE = 0.005  # of the training's cost; a forward is a third of a training step
_ROWS = 20  # batches between two, at least

log = logging.getLogger(__name__)


class TargetLoss(Callback):
    """Logs ``attent/target_loss`` now and then, and after training.

    Args:
        held: Batches of this rank. All ranks have as many.
        samples: Samples of all ranks' batches.
        row_size: Samples of a global batch.
        spent: Measures the time it takes.
    """

    def __init__(self, held: Sequence[Any], samples: int, row_size: int, spent: Stopwatch) -> None:
        self._held, self._spent = held, spent
        self._every = max(_ROWS, int(samples / 3 / _SHARE / row_size))  # batches
        self._stopped = False

    def batch_start(self, state: State, logger: Logger) -> None:
        """Log it where it is due. By counts, so that a resume logs at the same batches."""
        batch = int(state.timestamp.batch)
        if batch and batch % self._every == 0:
            self._log(state, logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Log it after training."""
        self._log(state, logger)

    def _log(self, state: State, logger: Logger) -> None:
        if self._stopped:
            return
        with self._spent:
            mine, reason = self._loss(state)
            values = state.device.tensor_to_device(torch.tensor([mine], dtype=torch.float32))
            mean = float(np.mean(gather_ranks(values, ranks=dist.get_world_size())))
        if not np.isfinite(mean):
            self._stopped = True  # on all ranks
            if dist.get_global_rank() == 0:
                log.warning(
                    "The target's loss is not logged: %s.", reason or "it is not a number on a rank"
                )
            return
        logger.log_metrics({"attent/target_loss": mean})

    def _loss(self, state: State) -> tuple[float, str]:
        """This rank's mean loss; NaN and a reason where the model has none in eval mode."""
        losses = []
        try:
            with untouched(state.model), _precision(state):
                for batch in self._held:
                    # A model may change its batch in place.
                    batch = state.device.batch_to_device(copy.deepcopy(batch))
                    outputs = state.model(batch)
                    loss = total_loss(unwrap(state.model).loss(outputs, batch))
                    losses.append(float("nan") if loss is None else float(loss))
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            return float("nan"), f"a forward in eval mode raised {type(error).__name__}: {error}"
        return float(np.mean(losses)), ""


def _precision(state: State) -> Any:
    return get_precision_context(state.precision, state.precision_config)
