"""The weights of lessons, as their selection gave them, in the gradients of each batch."""

from collections.abc import Callable

import numpy as np
import torch
from composer import Event, State
from composer.loggers import Logger
from numpy.typing import NDArray

from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.effects.weighting import WeightedOutputs
from attent_stream.model.reading import Reading


class LessonWeights(Effect):
    """Weights each lesson's gradient.

    Args:
        loader: Has the weights of the current batch.
        outputs: Weights the gradients of the model's outputs.
        reading: Tells how the outputs are read, if that is known.
    """

    def __init__(
        self,
        loader: TeachingDataLoader,
        outputs: WeightedOutputs,
        reading: Callable[[], Reading | None],
    ) -> None:
        self._loader, self._outputs, self._reading = loader, outputs, reading

    def idle(self, event: Event, state: State) -> bool:
        """A batch without weights matters only after one with weights."""
        if self._outputs.weighted:
            return False
        return event is not Event.BEFORE_TRAIN_BATCH or self._weights is None

    @property
    def _weights(self) -> NDArray[np.float32] | None:
        """Weights of the batch's lessons; None if all are 1."""
        epoch = self._loader.epoch
        weights = None if epoch is None or self._loader.fault else epoch.lesson[1]
        return None if weights is None or (weights == 1).all() else weights

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        weights = self._weights
        if weights is not None:
            weights = state.device.tensor_to_device(torch.from_numpy(weights))
        self._outputs.begin_batch(weights)

    def before_forward(self, state: State, logger: Logger) -> None:
        """See ``WeightedOutputs``."""
        self._outputs.begin_forward()

    def after_loss(self, state: State, logger: Logger) -> None:
        """Weight the micro-batch's outputs before its backward.

        Raises:
            AttentError: Weights do not reach this model's loss.
        """
        self._outputs.read_by(self._reading())
        self._outputs.forward_done(state.outputs, state.batch)
        self._outputs.loss_done(state.loss)
