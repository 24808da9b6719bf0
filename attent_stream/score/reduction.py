"""A fidelity at work on one model: a batch made smaller, and a forward that does less."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.vision import (
    interpolated_positions,
    interpolating,
    patch_embedding,
    shrunk,
    side_unit,
    some_patches,
)
from attent_stream.score.early_exit import Blocks, find_blocks
from attent_stream.score.fidelity import Fidelity
from attent_stream.score.token_share import ROUNDING, strided_positions


class Reduction:
    """What a fidelity leaves out of one model's scoring.

    Args:
        fidelity: Without ``proxy``, which is a matter of which model is asked.
        model: The model, wrapped or not; only looked at.
        text: Whether its samples are token sequences with a label each.

    Raises:
        FidelityError: The model cannot be scored so.
    """

    def __init__(self, fidelity: Fidelity, model: Module, *, text: bool) -> None:
        self.fidelity = fidelity
        if fidelity.tokens is not None and not text:
            raise FidelityError(
                "fidelity.tokens: expected a language model, received one without labels for tokens"
            )
        if text and (fidelity.resolution or fidelity.patches):
            raise FidelityError(
                "fidelity: expected resolution and patches for images only, received a language "
                "model"
            )
        self.blocks: Blocks | None = None
        if fidelity.layers is not None or fidelity.patches is not None:
            self.blocks = find_blocks(model)
        if fidelity.layers is not None and fidelity.layers > len(self.blocks):
            raise FidelityError(
                f"fidelity.layers: expected 1 to {len(self.blocks)}, the model's blocks, received "
                f"{fidelity.layers}"
            )
        self._cut = patch_embedding(model) if fidelity.patches is not None else None
        self._multiple = side_unit(model)
        self._interpolating = [] if fidelity.resolution is None else interpolating(model)
        self._device = next(model.parameters()).device.type

    def batch(self, batch: Any) -> Any:
        """The part of a batch that is looked at; the batch itself stays as it is."""
        fidelity = self.fidelity
        if fidelity.tokens is not None and fidelity.tokens.take == "first":
            return first_tokens(batch, fidelity.tokens.share)
        return (
            batch
            if fidelity.resolution is None
            else shrunk(batch, fidelity.resolution, self._multiple)
        )

    @contextmanager
    def forward(self, draw: tuple[int, ...]) -> Iterator[None]:
        """The model's forward does less, inside.

        Args:
            draw: Seeds the draw of patches.

        Raises:
            ScoreError: An image model that cannot take part of an image.
        """
        fidelity = self.fidelity
        with ExitStack() as stack:
            if fidelity.precision is not None:
                stack.enter_context(torch.autocast(self._device, torch.bfloat16))
            if fidelity.layers is not None:
                stack.enter_context(self.blocks.first(fidelity.layers))
            if fidelity.resolution is not None:
                stack.enter_context(interpolated_positions(self._interpolating))
            if fidelity.patches is not None:
                stack.enter_context(
                    some_patches(self._cut, self.blocks.entry, fidelity.patches, draw)
                )
            try:
                yield
            except (RuntimeError, AssertionError, ValueError, TypeError) as error:
                image = fidelity.resolution is not None or fidelity.patches is not None
                if not image or out_of_memory(error) or isinstance(error, ScoreError):
                    raise
                raise ScoreError(
                    f"fidelity {fidelity.name} does not work with this model ({error}): leave it "
                    "away"
                ) from error

    @property
    def strided(self) -> bool:
        """Whether only some of the tokens that the model sees go through the head."""
        tokens = self.fidelity.tokens
        return tokens is not None and tokens.take == "strided"

    def positions(self, labels: Tensor) -> Tensor | None:
        """Which tokens go through the head; see ``strided_positions``. None: all."""
        return strided_positions(labels, self.fidelity.tokens.share) if self.strided else None


def first_tokens(batch: Any, share: float) -> Any:
    """A batch with the first ``ceil(share T)`` tokens of each sample, at least two.

    Args:
        batch: A mapping with ``labels`` of shape (B, T); every tensor of shape (B, T, ...) is cut.
        share: In (0, 1).

    Raises:
        ScoreError: No such labels, or a tensor with T along another dimension (a mask over pairs of
            tokens).
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        raise ScoreError(
            f"fidelity.tokens needs a batch with labels of shape (B, T), got {describe(batch)}"
        )
    size, length = labels.shape
    kept = min(length, max(2, -int(-(share * length - ROUNDING) // 1)))
    cut = {}
    for key, value in batch.items():
        along = isinstance(value, Tensor) and tuple(value.shape[:2]) == (size, length)
        if isinstance(value, Tensor) and length in value.shape[2 if along else 1 :]:
            raise ScoreError(
                f"fidelity.tokens cannot cut {key!r} of shape {tuple(value.shape)} to its first "
                "tokens: use strided"
            )
        cut[key] = value[:, :kept] if along else value
    return cut
