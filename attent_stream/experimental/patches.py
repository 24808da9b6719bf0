"""Scoring a ViT on a random share of an image's patches (``fidelity: {patches: 0.5}``)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Conv2d, Module

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe

_MAX_PREFIX = 8  # tokens before the patches: class, distillation, registers


class RandomPatches:
    """Lets a ViT's blocks see the prefix tokens (the class token) and a share of the patches.

    Args:
        share: In (0, 1).
        embedding: The convolution that cuts images into patches; see ``vision.patch_embedding``.
        entry: The first block, called with hidden states of shape (B, prefix + patches, D).
    """

    def __init__(self, share: float, embedding: Conv2d, entry: Module) -> None:
        self._share, self._embedding, self._entry = share, embedding, entry

    @contextmanager
    def forward(self, draw: tuple[int, ...]) -> Iterator[None]:
        """Leave patches out of the model's forwards inside the context.

        Args:
            draw: Seeds the draw. All images of a window lose the same patches, so that their
                scores compare.

        Raises:
            ScoreError: The first block does not take (B, prefix + patches, D).
        """
        patches: list[int] = []

        def count(module: Module, args: tuple, output: Tensor) -> None:
            patches[:] = [output.shape[-2] * output.shape[-1]]

        def leave_out(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
            hidden = args[0] if args else kwargs.get("hidden_states")
            fits = isinstance(hidden, Tensor) and hidden.ndim == 3 and patches
            prefix = hidden.shape[1] - patches[0] if fits else -1
            if not 0 <= prefix <= _MAX_PREFIX:
                raise ScoreError(
                    "fidelity.patches: expected blocks that take (B, patches, D), got "
                    f"{describe(hidden)} for {patches or 'no'} patches"
                )
            drawn = prefix + drawn_patches(patches[0], self._share, draw)
            kept = torch.from_numpy(np.concatenate([np.arange(prefix), drawn]))
            hidden = hidden.index_select(1, kept.to(hidden.device, non_blocking=True))
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        hooks = [
            self._embedding.register_forward_hook(count),
            self._entry.register_forward_pre_hook(leave_out, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def drawn_patches(count: int, share: float, draw: tuple[int, ...]) -> np.ndarray:
    """Draw ``ceil(share count)`` numbers below ``count``, int64, ascending, seeded by ``draw``."""
    size = min(count, math.ceil(share * count - 1e-9))
    return np.sort(np.random.default_rng([*draw, count]).permutation(count)[:size])
