"""Progressive resolution: smaller images early in training.

Models learn coarse shapes first, and the cost of a ViT grows with the area. The method is
progressive resizing (Howard, fast.ai, 2018), as in the curricula of EfficientNetV2 (Tan & Le, ICML
2021, arXiv 2104.00298) and EfficientTrain (Wang et al., ICCV 2023, arXiv 2211.09703). Composer's
``ProgressiveResizing`` uses nearest pixels, and a Hugging Face ViT rejects its images. Here images
are resized with antialiasing to whole patches, a ViT interpolates its position embeddings, and
candidates are scored at the same resolution.
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
    """Trains on smaller images first, with or without AtteNT.

    Args:
        share: Share of each side in (0, 1], rounded to whole patches, or a schedule ``{schedule,
            from, to, over, stages}``.

    Raises:
        ValueError: A share is out of range, or the schedule is unknown.
    """

    def __init__(self, share: float | Mapping[str, Any] | ShareSchedule) -> None:
        self._schedule = parse_share(share, "progressive_resolution.share")
        self._multiple = (1, 1)
        self._tried = False  # whether a forward on smaller images was tried in this fit
        self._parts: set[Module] = set()  # modules that interpolate position embeddings
        self._interpolates = ExitStack()
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.BATCH_START: self._batch_start,
            Event.FIT_END: self._fit_end,
        }

    def match(self, event: Event, state: State) -> bool:
        """Whether this event is handled."""
        return event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Handle the event."""
        self._events[event](state, logger)

    def prepare_models(self, models: Sequence[Module]) -> None:
        """Let models that score candidates take images of several sizes."""
        if self._schedule.some:
            parts = {part for model in models for part in interpolating(model)} - self._parts
            self._parts |= parts
            # It has no effect on images of the model's own size, so it stays for the whole fit.
            self._interpolates.enter_context(interpolated_positions(list(parts)))

    def prepare_candidates(self, state: State, batch: Any) -> Any:
        """Return a batch at the current resolution. The batch itself is not changed.

        All ranks must call this together.

        Raises:
            AttentError: The model only takes images of one size.
            ScoreError: The batch has no images.
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
                "progressive_resolution ends at %g of the images' sides, but evaluation uses whole "
                "images.",
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
                "progressive_resolution needs a model that takes images of several sizes, but this "
                f"one failed at {sides}: {error}"
            ) from error
        self._tried = True
