"""A fidelity applied to one model: a smaller batch, and a forward that computes less."""

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
)
from attent_stream.score.early_exit import Blocks, find_blocks
from attent_stream.score.fidelity import OPTIONS, Fidelity
from attent_stream.score.token_positions import share_of, strided_positions


class ReducedForward:
    """What a fidelity leaves out of one model's scoring forwards.

    Args:
        fidelity: Without ``proxy``, which decides the model and not the forward.
        model: The model, wrapped or not. It is not changed.
        text: Whether its samples are token sequences with a label for each token.

    Raises:
        FidelityError: The model cannot be scored at this fidelity.
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
        self._patches = self._blocks = None
        if fidelity.layers is not None or fidelity.patches is not None:
            self._blocks: Blocks | None = find_blocks(model)
        if fidelity.layers is not None and fidelity.layers > len(self._blocks):
            raise FidelityError(
                f"fidelity.layers: expected 1 to {len(self._blocks)}, the model's blocks, received "
                f"{fidelity.layers}"
            )
        if fidelity.patches is not None:
            embedding, entry = patch_embedding(model), self._blocks.entry
            self._patches = OPTIONS.get("patches")(fidelity.patches, embedding, entry)
        self._multiple = side_unit(model)
        self._interpolating = [] if fidelity.resolution is None else interpolating(model)
        self._device = next(model.parameters()).device.type

    def batch(self, batch: Any) -> Any:
        """Return a batch without what is left out. The batch itself is not changed."""
        fidelity = self.fidelity
        if fidelity.tokens is not None and fidelity.tokens.take == "first":
            return first_tokens(batch, fidelity.tokens.share)
        if fidelity.resolution is not None:
            return shrunk(batch, fidelity.resolution, self._multiple)
        return batch

    @contextmanager
    def forward(self, draw: tuple[int, ...]) -> Iterator[None]:
        """Make the model's forward compute less inside the context.

        Args:
            draw: Seeds what is drawn at random.

        Raises:
            ScoreError: An image model does not work with less of an image.
        """
        fidelity = self.fidelity
        with ExitStack() as stack:
            if fidelity.precision is not None:
                stack.enter_context(torch.autocast(self._device, torch.bfloat16))
            if fidelity.layers is not None:
                stack.enter_context(self._blocks.first(fidelity.layers))
            if fidelity.resolution is not None:
                stack.enter_context(interpolated_positions(self._interpolating))
            if self._patches is not None:
                stack.enter_context(self._patches.forward(draw))
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
        """Whether only some of the tokens that the model sees go through the output head."""
        tokens = self.fidelity.tokens
        return tokens is not None and tokens.take == "strided"

    def positions(self, labels: Tensor) -> Tensor | None:
        """Tokens that go through the output head; see ``strided_positions``. None means all."""
        return strided_positions(labels, self.fidelity.tokens.share) if self.strided else None


def first_tokens(batch: Any, share: float) -> Any:
    """Cut each sample of a batch to its first ``ceil(share T)`` tokens, at least two.

    Args:
        batch: A mapping with ``labels`` of shape (B, T). Every tensor of shape (B, T, ...) is cut.
        share: In (0, 1).

    Raises:
        ScoreError: There are no such labels, or a tensor has T along another dimension, such as a
            mask over pairs of tokens.
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        raise ScoreError(
            f"fidelity.tokens needs a batch with labels of shape (B, T), got {describe(batch)}"
        )
    size, length = labels.shape
    kept = min(length, max(2, share_of(length, share)))
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
