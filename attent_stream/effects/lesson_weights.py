"""The weights of lessons over the fits of a run: those of their selection and, with ``reweight``,
those of their own training losses.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from composer.devices import Device
from numpy.typing import NDArray
from torch.nn import Module

from attent_stream.base.errors import AttentError, ScoreError
from attent_stream.base.gather import first_fault
from attent_stream.effects.weighting import WeightedOutputs
from attent_stream.experimental.reweighting import Reweighting, ReweightSettings
from attent_stream.model.batch import batch_length
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reading import Reading
from attent_stream.model.trained import Trained
from attent_stream.score.build import build_scorer
from attent_stream.score.scorer import Scorer

log = logging.getLogger(__name__)


class LessonWeights:
    """Brings weights to the gradients of batches, one after the other.

    Args:
        settings: Of weighting by losses; None: not so.

    Attributes:
        fault: Why weights do not work in this fit, where nobody has asked for them; they are then
            all 1.
        tries: Whether to see, on the first batch whose outputs are read, if weights would work.
    """

    def __init__(self, settings: ReweightSettings | None) -> None:
        self._reweighting = None if settings is None else Reweighting(settings)
        self._model: Module | None = None
        self._outputs: WeightedOutputs | None = None
        self._losses: Scorer | None = None
        self._check: LossCheck | None = None
        self._rows: Callable[[Any], int] = batch_length
        self._seen = False  # this batch's first microbatch
        self.fault: str | None = None
        self.tries = self._tried = self._asked = False

    def open(
        self,
        model: Module,
        resumed: dict[str, Any] | None,
        rows: Callable[[Any], int],
        *,
        asked: bool,
    ) -> None:
        """Be there for a fit.

        Args:
            model: The learner as training has it (wrapped).
            resumed: AtteNT's state of a checkpoint to go on from, or None.
            rows: How many samples a microbatch holds.
            asked: Whether weights were asked for by name: where they do not work is then an error,
                else training goes on without.
        """
        self.fault, self.tries, self._tried, self._asked = (
            None,
            False,
            False,
            asked or self._reweighting is not None,
        )
        self._model = model
        self._outputs, self._rows = WeightedOutputs(model, rows), rows
        if self._reweighting is not None:
            self._losses = build_scorer("loss", model, head=None)
            self._check = LossCheck(model)
            if resumed is not None:
                self._reweighting.load(resumed.get("reweight"))

    def forget(self) -> None:
        """Begin with nothing."""
        if self._reweighting is not None:
            self._reweighting.load(None)

    def begin_batch(self, weights: NDArray | None, device: Device) -> None:
        """Before a batch's first forward, also where one that failed begins anew.

        Args:
            weights: Of the batch's lessons by their selection, float32 of shape (B,); None where
                none was made.
            device: Of the outputs.
        """
        if self._reweighting is not None:
            self._reweighting.begin_batch()
        self._seen = False
        if self.fault is not None:
            weights = None
        even = weights is None or (self._reweighting is None and (weights == 1).all())
        self._outputs.begin_batch(
            None if even else device.tensor_to_device(torch.from_numpy(weights))
        )

    def begin_forward(self) -> None:
        """Before a forward."""
        self._outputs.begin_forward(watched=self.tries and not self._tried)

    def loss_done(
        self, outputs: Any, batch: Any, loss: Any, *, reading: Reading | None, taught: bool
    ) -> None:
        """Once a microbatch's loss is there, before its backward; see
        ``WeightedOutputs.forward_done`` and ``loss_done``.

        Args:
            outputs: What the model returned.
            batch: The microbatch.
            loss: Of it.
            reading: How the outputs are read, where it is known.
            taught: Whether it is of a taught epoch.

        Raises:
            AttentError: Weights do not work here, and were asked for.
            ScoreError: Lessons are to be weighted by their losses, and the loss cannot be had
                sample by sample.
        """
        self._outputs.read_by(reading)
        trying = self.tries and reading is not None and not self._tried
        self._tried = self._tried or trying  # the same on all ranks, whatever follows
        try:
            self._weight(outputs, batch, loss, taught)
            if trying:
                self._outputs.try_out(outputs, batch, loss)
        except (AttentError, ScoreError) as error:
            if self._asked:
                raise
            if self.fault is None and not trying:
                log.warning("Lessons are trained on without their weights from now on: %s", error)
            self.fault = self.fault or str(error)

    def agreed_fault(self) -> str | None:
        """After a batch: why weights do not work, on any rank, once ``tries`` has shown it; all
        ranks call this together.
        """
        if not self.tries or not self._tried:
            return None
        self.tries = False
        return first_fault(self.fault)

    def _weight(self, outputs: Any, batch: Any, loss: Any, taught: bool) -> None:
        factors = None
        if self._reweighting is not None and taught:
            self._look(outputs, batch, loss)
            losses = self._losses.read_by(self._check.reading, self._rows)
            factors = self._reweighting.factors(losses.from_outputs(self._model, outputs, batch))
        self._outputs.forward_done(outputs, batch, factors)
        self._outputs.loss_done(loss)

    def _look(self, outputs: Any, batch: Any, loss: Any) -> None:
        """Hold the reading of outputs against the loss, on a batch's first microbatch; all ranks
        together.
        """
        if self._seen:
            return
        self._seen = True
        self._check.look(lambda: Trained.of(outputs, batch, loss, self._rows(batch)), keep=True)
        reason = self._check.reason
        if reason is None and self._check.reading.outputs is None:
            reason = "its forward returns a loss and no outputs for each sample"
        if reason is not None:
            raise ScoreError(
                f"reweight needs each sample's loss, and {reason}: leave reweight away"
            )

    def end_batch(self, size: int) -> None:
        """After a taught batch's last backward; all ranks must come here together.

        Args:
            size: Samples of a full batch on each rank.
        """
        if self._reweighting is not None:
            self._reweighting.end_batch(size)

    def state(self) -> list[float] | None:
        """The bounds of ``reweight``: plain numbers, None where there are none."""
        return None if self._reweighting is None else self._reweighting.state()
