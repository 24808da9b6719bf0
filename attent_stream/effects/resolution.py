"""Images at a share of their sides while training is young: coarse shapes are learnt first, and a
ViT's work grows with the area.

Progressive resizing (Howard, fast.ai, 2018), of which EfficientNetV2 (Tan & Le, ICML 2021, arXiv
2104.00298) and EfficientTrain (Wang et al., ICCV 2023, arXiv 2211.09703) made curricula. Composer's
``ProgressiveResizing`` takes the nearest pixels, and a Hugging Face ViT refuses what it gives. Here
images are resized with antialiasing, to whole patches; the ViT interpolates its position
embeddings; and candidates are scored as they would be trained on.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from composer import Algorithm, Event, State
from composer.core import get_precision_context
from composer.loggers import Logger
from torch.nn import Module

from attent_stream.base.duration import clock_of
from attent_stream.base.errors import AttentError
from attent_stream.base.schedule import ShareSchedule, parse_share
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


class ProgressiveResolution(Algorithm):
    """Trains on small images first. It works with and without AtteNT.

    Args:
        share: Share of each side, in (0, 1], or a schedule ``{schedule, from, to, over, stages}``;
            rounded to whole patches.

    Raises:
        ValueError: A share out of range, or an unknown schedule.
    """

    def __init__(self, share: float | Mapping[str, Any] | ShareSchedule) -> None:
        self._schedule = parse_share(share, "progressive_resolution.share")
        self._multiple = (1, 1)
        self._tried = False  # a forward on smaller images, in this fit
        self._parts: set[Module] = set()  # whose position embeddings are interpolated
        self._interpolates = ExitStack()
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.BATCH_START: self._batch_start,
            Event.FIT_END: self._fit_end,
        }

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Do it."""
        self._events[event](state, logger)

    def prepare_models(self, models: Sequence[Module]) -> None:
        """Let these models, which score candidates, take images of several sizes."""
        if self._schedule.some:
            parts = {part for model in models for part in interpolating(model)} - self._parts
            self._parts |= parts
            # For the whole fit: for images of the model's own size this changes nothing.
            self._interpolates.enter_context(interpolated_positions(list(parts)))

    def prepare_candidates(self, state: State, batch: Any) -> Any:
        """A batch on the device as it would be trained on now. The batch itself is not changed.
        All ranks call this together.

        Raises:
            AttentError: The model takes images of one size only.
            ScoreError: There are no images in the batch.
        """
        share = self._schedule.at(clock_of(state))
        seen = batch if share == 1 else shrunk(batch, share, self._multiple)
        if seen is not batch and not self._tried:
            self._try(state, seen)
        return seen

    def _fit_start(self, state: State, logger: Logger) -> None:
        if not self._schedule.some:
            return
        self._tried, self._multiple = False, side_unit(state.model)
        self.prepare_models([state.model])
        if self._schedule.end < 1:
            log.warning(
                "progressive_resolution ends at %g of the images' sides, while evaluation looks at "
                "whole images.",
                self._schedule.end,
            )

    def _batch_start(self, state: State, logger: Logger) -> None:
        if self._schedule.some:
            state.batch = self.prepare_candidates(state, state.batch)
            share = self._schedule.at(clock_of(state))
            logger.log_metrics({"attent/resolution": share})

    def _fit_end(self, state: State, logger: Logger) -> None:
        self._interpolates.close()
        self._parts = set()

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
                "progressive_resolution needs a model that takes images of several sizes, and this "
                "one fails "
                f"at {sides}: {error}"
            ) from error
        self._tried = True
