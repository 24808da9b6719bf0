"""Images at a lower resolution, and the models that take them."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Conv2d, Module
from torch.nn import functional as F

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.wrapping import model_name, unwrap

PIXELS = "pixel_values"  # the images' key in a mapping
_INTERPOLATES = "interpolate_pos_encoding"


def patch_embedding(model: Module) -> Conv2d:
    """Find the convolution that cuts images into patches.

    It is the model's first convolution, with a stride as large as its kernel.

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
    """(height, width) that divides the sides of the model's images.

    It is the size of a ViT's patch, and (1, 1) for other models.
    """
    try:
        return patch_embedding(model).stride
    except FidelityError:
        return 1, 1


def shrunk(batch: Any, share: float, multiple: tuple[int, int] = (1, 1)) -> Any:
    """Resize a batch's images to a share of their height and width (bilinear, antialiased).

    Args:
        batch: A mapping with ``pixel_values``, or (images, target). Images are floats of shape (B,
            C, H, W).
        share: Share of each side, in (0, 1).
        multiple: Sides are rounded to multiples of it; see ``side_unit``.

    Returns:
        A new batch of the same form, or the batch itself where rounding does not change the sides.

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
    images = None
    if isinstance(batch, Mapping):
        images = batch.get(PIXELS)
    elif isinstance(batch, (tuple, list)):
        images = batch[0]
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise ScoreError(
            f"resolution needs float images of shape (B, C, H, W), got {describe(batch)}"
        )
    return images


def interpolating(model: Module) -> list[Module]:
    """The embedding modules of a Hugging Face model that can interpolate their positions."""
    return [
        module
        for module in unwrap(model).modules()
        if _INTERPOLATES in inspect.signature(type(module).forward).parameters
        and not hasattr(module, "get_input_embeddings")
    ]


@contextmanager
def interpolated_positions(modules: list[Module]) -> Iterator[None]:
    """Make modules interpolate their position embeddings inside the context."""

    def ask(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        return args, {**kwargs, _INTERPOLATES: True}

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(ask, with_kwargs=True).remove)
        yield
