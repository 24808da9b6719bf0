"""Images at a share of their sides while training is young: coarse shapes are learnt first, and a
ViT's work grows with the area.

Progressive resizing (Howard, fast.ai, 2018), of which EfficientNetV2 (Tan & Le, ICML 2021, arXiv
2104.00298) and EfficientTrain (Wang et al., ICCV 2023, arXiv 2211.09703) made curricula. Composer's
``ProgressiveResizing`` takes the nearest pixels, and a Hugging Face ViT refuses what it gives. Here
images are resized with antialiasing, to whole patches; the ViT interpolates its position
embeddings; and candidates are scored as they would be trained on.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from composer import State
from composer.core import get_precision_context
from torch.nn import Module

from attent_stream.base.errors import AttentError
from attent_stream.base.schedule import ShareSchedule
from attent_stream.base.span import Clock
from attent_stream.model.batch import split_batch
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.guard import untouched
from attent_stream.model.vision import (
    image_sides,
    interpolated_positions,
    interpolating,
    shrunk,
    side_unit,
)

log = logging.getLogger(__name__)


class ProgressiveResolution:
    """Makes images smaller, by a schedule over training.

    Args:
        schedule: Share of each side, in (0, 1]; rounded to whole patches.
    """

    def __init__(self, schedule: ShareSchedule) -> None:
        self.some = schedule.some
        self._schedule = schedule
        self._multiple = (1, 1)
        self._tried = False  # a forward on smaller images, in this fit
        self._interpolates = ExitStack()

    def open(self, learner: Module, scorers: Sequence[Module]) -> None:
        """Be there for a fit.

        Args:
            learner: The model, wrapped or not.
            scorers: Others that score candidates.
        """
        self.close()
        if not self.some:
            return
        self._tried, self._multiple = False, side_unit(learner)
        parts = {part for model in (learner, *scorers) for part in interpolating(model)}
        # For the whole fit: with images of the model's own size this changes nothing.
        self._interpolates.enter_context(interpolated_positions(list(parts)))
        if self._schedule.end < 1:
            log.warning(
                "resolution ends at %g of the images' sides, while evaluation looks at whole "
                "images.",
                self._schedule.end,
            )

    def close(self) -> None:
        """Leave the models as they are."""
        self._interpolates.close()

    def share(self, clock: Clock) -> float:
        """Of each side, at a time."""
        return self._schedule.at(clock)

    def smaller(self, state: State, batch: Any, clock: Clock) -> Any:
        """A batch as it is to be seen at a time; the batch itself stays as it is. All ranks call
        this together.

        Args:
            state: Of the run.
            batch: Lessons, or candidates on the model's device; see ``vision.shrunk``.
            clock: The time.

        Raises:
            AttentError: A model that takes images of one size only.
            ScoreError: There are no images in the batch.
        """
        share = self.share(clock)
        seen = batch if share == 1 else shrunk(batch, share, self._multiple)
        if seen is not batch and not self._tried:
            self._try(state, seen)
        return seen

    def _try(self, state: State, batch: Any) -> None:
        try:
            with (
                untouched(state.model),
                get_precision_context(state.precision, state.precision_config),
            ):
                state.model(split_batch(batch, 1)[0])
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            if out_of_memory(error):
                raise
            sides = " x ".join(map(str, image_sides(batch)))
            raise AttentError(
                "resolution needs a model that takes images of several sizes, and this one fails "
                f"at {sides}: {error}"
            ) from error
        self._tried = True
