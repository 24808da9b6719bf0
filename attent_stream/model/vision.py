"""Less of an image: a lower resolution, or a share of a ViT's patches."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Conv2d, Module
from torch.nn import functional as F

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.wrapping import model_name, unwrap

PIXELS = "pixel_values"  # of a mapping; of a tuple the first
_INTERPOLATES = "interpolate_pos_encoding"
_PREFIX = 8  # tokens that may stand before the patches: class, distillation, registers


def patch_embedding(model: Module) -> Conv2d:
    """The convolution that cuts images into patches: the model's first, with a stride as large as
    its kernel.

    Raises:
        FidelityError: The model has none.
    """
    found = next((module for module in unwrap(model).modules() if isinstance(module, Conv2d)), None)
    if found is None or found.kernel_size != found.stride or found.stride == (1, 1):
        raise FidelityError(
            "fidelity.patches: expected a ViT with a convolution that cuts patches, received "
            f"{model_name(model)}"
        )
    return found


def side_unit(model: Module) -> tuple[int, int]:
    """(height, width) of which images' sides must be multiples: a ViT's patch; 1 for what has none,
    such as a convolutional model.
    """
    try:
        return patch_embedding(model).stride
    except FidelityError:
        return 1, 1


def shrunk(batch: Any, share: float, multiple: tuple[int, int] = (1, 1)) -> Any:
    """A batch with its images at a share of their height and width.

    Args:
        batch: A mapping with ``pixel_values``, or (images, target); images are floats of shape (B,
            C, H, W).
        share: Of each side, in (0, 1).
        multiple: See ``side_unit``; sides are rounded to it.

    Returns:
        A new batch of the same form; bilinear, antialiased. The batch itself where rounding leaves
        the sides as they are.

    Raises:
        ScoreError: There are no such images.
    """
    images = _images(batch)
    size = [
        max(1, round(side * share / unit)) * unit
        for side, unit in zip(images.shape[-2:], multiple, strict=True)
    ]
    if tuple(size) == tuple(images.shape[-2:]):
        return batch
    smaller = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    if isinstance(batch, Mapping):
        return {**batch, PIXELS: smaller}
    return type(batch)([smaller, *batch[1:]])


def image_sides(batch: Any) -> tuple[int, int]:
    """Height and width of a batch's images, in pixels.

    Args:
        batch: See ``shrunk``.

    Raises:
        ScoreError: There are no such images.
    """
    return tuple(_images(batch).shape[-2:])


def _images(batch: Any) -> Tensor:
    images = (
        batch.get(PIXELS)
        if isinstance(batch, Mapping)
        else batch[0]
        if isinstance(batch, (tuple, list))
        else None
    )
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise ScoreError(
            f"resolution needs float images of shape (B, C, H, W), got {describe(batch)}"
        )
    return images


def interpolating(model: Module) -> list[Module]:
    """Parts of a Hugging Face model that can interpolate their position embeddings: the embeddings,
    not the model.
    """
    return [
        module
        for module in unwrap(model).modules()
        if _INTERPOLATES in inspect.signature(type(module).forward).parameters
        and not hasattr(module, "get_input_embeddings")
    ]


@contextmanager
def interpolated_positions(modules: list[Module]) -> Iterator[None]:
    """``interpolating`` parts do so, inside."""

    def ask(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        return args, {**kwargs, _INTERPOLATES: True}

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(ask, with_kwargs=True).remove)
        yield


@contextmanager
def some_patches(
    embedding: Conv2d, entry: Module, share: float, draw: tuple[int, ...]
) -> Iterator[None]:
    """A ViT's blocks see a share of the patches only, inside, and all that stands before these (the
    class token).

    Args:
        embedding: See ``patch_embedding``.
        entry: The first block, called with hidden states of shape (B, prefix + patches, D).
        share: In (0, 1).
        draw: Seeds the draw: the same patches for the same numbers, of all images alike, so that
            scores compare.
    """
    grid: list[int] = []

    def measure(module: Module, args: tuple, output: Tensor) -> None:
        grid[:] = [output.shape[-2] * output.shape[-1]]

    def leave_out(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        key = None if args else "hidden_states"
        hidden = args[0] if args else kwargs.get(key)
        prefix = (
            hidden.shape[1] - grid[0]
            if isinstance(hidden, Tensor) and hidden.ndim == 3 and grid
            else -1
        )
        if not 0 <= prefix <= _PREFIX:
            raise ScoreError(
                f"fidelity.patches needs blocks that take (B, patches, D), got {describe(hidden)} "
                f"for {grid or 'no'} patches"
            )
        kept = torch.from_numpy(
            np.concatenate([np.arange(prefix), prefix + drawn_patches(grid[0], share, draw)])
        )
        hidden = hidden.index_select(1, kept.to(hidden.device, non_blocking=True))
        return ((hidden, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: hidden})

    hooks = [
        embedding.register_forward_hook(measure),
        entry.register_forward_pre_hook(leave_out, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def drawn_patches(count: int, share: float, draw: tuple[int, ...]) -> np.ndarray:
    """``ceil(share count)`` of the numbers below ``count``, ascending, int64; the same for the same
    ``draw``.
    """
    size = min(count, math.ceil(share * count - 1e-9))
    return np.sort(np.random.default_rng([*draw, count]).permutation(count)[:size])
