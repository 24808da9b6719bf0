"""Finds the reading that a model's loss uses, and tests it on later batches."""

import logging
from collections.abc import Callable
from typing import Any

from composer.utils import dist
from torch.nn import Module

from attent_stream.base.errors import in_words
from attent_stream.base.gather import first_fault
from attent_stream.model.batch import describe
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.first_reading import first_reading, logits_path, target_path
from attent_stream.model.loss_hints import LossHints
from attent_stream.model.matching import fits, matching, says_nothing
from attent_stream.model.reading import CLASSES, Reading, tensors_of
from attent_stream.model.trained import Trained, operands
from attent_stream.model.traits import Traits

log = logging.getLogger(__name__)

# Batches that are tested: the first ones, the 4th, 8th, ... 64th, and one in every ``_EVERY``
_FIRST, _EVERY = 3, 128
_PATIENCE = 64  # without a reading, all of the first batches are tested
_MEMORY = "memory ran out"  # says nothing about readings


class LossCheck:
    """Keeps the readings that have reproduced every loss so far, the same on all ranks.

    Args:
        model: The model, wrapped or not. It is not changed.
        evaluating: The forwards are in eval mode.

    Attributes:
        reason: Why no reading is left, in words. None while there is one, and before the first
            batch.
    """

    def __init__(self, model: Module, *, evaluating: bool = False) -> None:
        self.reason: str | None = None
        self._traits, self._hints = Traits.of(model), LossHints.of(model)
        self._evaluating = evaluating
        self._left: tuple[Reading, ...] = ()
        self._batches = 0
        self._told = False  # whether it was logged that a loss is no longer reproduced

    @property
    def reading(self) -> Reading | None:
        """The most likely reading that is left, or None."""
        return self._left[0] if self._left else None

    @property
    def due(self) -> bool:
        """Whether the next batch is to be tested."""
        first, batch = _FIRST if self._left else _PATIENCE, self._batches
        power = batch & (batch - 1) == 0 and batch < _EVERY
        return self.reason is None and (batch < first or power or batch % _EVERY == 0)

    def look(self, forward: Callable[[], Trained], keep: bool = False) -> None:
        """Call ``see`` for a batch that is ``due``, else count it."""
        if self.due:
            self.see(forward, keep)
        else:
            self._batches += 1

    def see(self, forward: Callable[[], Trained], keep: bool = False) -> None:
        """Test the readings on one more loss. All ranks must call this together.

        A loss that is not finite and a batch without any label are skipped.

        Args:
            forward: Returns a forward with its loss. What it raises becomes ``reason``.
            keep: Keep the last reading where a later loss is not reproduced. A schedule may have
                changed the loss, which must not end the run.
        """
        self._batches += 1
        if self.reason is not None:
            return
        trained, fault = _tried(forward)
        silent = fault is _MEMORY or (trained is not None and says_nothing(trained))
        if all(dist.all_gather_object(silent)):
            return
        left = self._agreed(trained, self._left, silent) if self._left else ()
        if not left:
            mine, failed = [], None
            if trained is not None and not silent:
                mine, failed = _tried(lambda: self._matching(trained))
            fault = fault or failed
            everyones = [one for found in dist.all_gather_object(mine or []) for one in found]
            left = self._agreed(trained, tuple(dict.fromkeys(everyones)), silent)
        if not left and keep and self._left:
            if not self._told and dist.get_global_rank() == 0:
                log.warning(
                    "The loss is no longer what is scored (%s): its form has changed. Scores go "
                    "on as before.",
                    self._left[0].describe(),
                )
            self._told = True
            return
        self._left = left
        if not left:
            fault = fault or (None if trained is None or silent else self._why(trained))
            self.reason = first_fault(fault) or "its loss differs between ranks"

    def _matching(self, trained: Trained) -> list[Reading]:
        return matching(trained, _prior(self._traits, trained), self._hints)

    def _agreed(
        self, trained: Trained | None, readings: tuple[Reading, ...], silent: bool
    ) -> tuple[Reading, ...]:
        """The readings that fit on every rank with a batch to test; all ranks pass the same."""
        mine = [
            silent or (trained is not None and self._fits(reading, trained)) for reading in readings
        ]
        every = dist.all_gather_object(mine)
        return tuple(
            reading
            for reading, fit in zip(readings, zip(*every, strict=True), strict=True)
            if all(fit)
        )

    def _fits(self, reading: Reading, trained: Trained) -> bool:
        found, _ = _tried(
            lambda: (
                fits(reading, trained, self._hints)
                and not (self._evaluating and self._is_final(reading, trained))
            )
        )
        return bool(found)

    def _is_final(self, reading: Reading, trained: Trained) -> bool:
        """Whether eval mode returns no logits, but nothing or probabilities.

        Their loss is not the training loss.
        """
        if reading.outputs is None:
            return True
        if reading.kind != CLASSES:
            return False
        z = operands(reading, trained)[0].float()
        return bool((z >= 0).all()) and bool(((z.sum(dim=-1) - 1).abs() < 1e-3).all())

    def _why(self, trained: Trained) -> str:
        if trained.total is None:
            return f"its loss is {describe(trained.loss)}, which is no number"
        if not tensors_of(trained.batch, trained.samples):
            return (
                "the batch has no labels with a row for each sample, it is "
                f"{describe(trained.batch)}"
            )
        if not any(
            one.is_floating_point() for _, one in tensors_of(trained.outputs, trained.samples)
        ):
            return (
                "its forward returns a loss and no outputs for each sample, as far as can be seen "
                f"({describe(trained.outputs)})"
            )
        return (
            f"no pairing of its outputs ({describe(trained.outputs)}) with the batch's labels "
            f"gives its loss, {trained.total:.4g}"
        )


def _prior(traits: Traits, trained: Trained) -> Reading | None:
    """The reading that the model's class and the names in outputs and batch suggest, or None."""
    outputs, target = logits_path(trained.outputs), target_path(trained.batch)
    labels = dict(tensors_of(trained.batch, trained.samples)).get(target)
    if outputs is None or labels is None:
        return None
    logits = dict(tensors_of(trained.outputs, trained.samples)).get(outputs)
    return first_reading(traits, logits, labels, outputs=outputs, target=target)


def _tried(function: Callable[[], Any]) -> tuple[Any, str | None]:
    """What a function returns, and in words what it raised."""
    try:
        return function(), None
    except Exception as error:
        return None, _MEMORY if out_of_memory(error) else in_words(error)
