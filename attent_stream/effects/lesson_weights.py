"""The weights of lessons, as their selection gave them, in the gradients of each batch."""

from collections.abc import Callable

import torch
from composer import Event, State
from composer.loggers import Logger

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
        """Without weights only a batch's beginning matters."""
        return event != Event.BEFORE_TRAIN_BATCH and not self._outputs.weighted

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin a batch, also again after one that failed."""
        epoch = self._loader.epoch
        weights = None if epoch is None or self._loader.fault else epoch.lesson[1]
        if weights is None or (weights == 1).all():
            self._outputs.begin_batch(None)
        else:
            self._outputs.begin_batch(state.device.tensor_to_device(torch.from_numpy(weights)))

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
