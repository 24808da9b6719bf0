"""The form of a model's loss on padded text, measured before training."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from composer import State
from composer.core import get_precision_context
from composer.core.precision import Precision
from composer.utils import dist
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.base.batch_seed import random_numbers_kept
from attent_stream.base.errors import in_words
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.fit.loss_form import LossForm, loss_form
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.guard import untouched
from attent_stream.model.wrapping import unwrap

_EXACT, _ROUNDED = 2e-5, 2e-3  # relative errors of losses, in float32 and with fewer bits


def loss_form_of(
    state: State, loader: TeachingDataLoader, form: BatchForm, resumed: Mapping[str, Any] | None
) -> LossForm:
    """As a checkpoint tells, else measured; all ranks call this together.

    Args:
        state: The Trainer's.
        loader: Has the samples and the collate function.
        form: Transforms batches as in training.
        resumed: AtteNT's state of a checkpoint to go on from, or None.
    """
    known = None if resumed is None else resumed.get("loss")
    return measured(state, loader, form) if known is None else LossForm(**known)


def measured(state: State, loader: TeachingDataLoader, form: BatchForm) -> LossForm:
    """Measure it by a few forwards of two samples; all ranks call this together.

    Args:
        state: The Trainer's.
        loader: Has the samples and the collate function.
        form: Transforms batches as in training.
    """
    floats = {p.dtype for p in state.model.parameters() if p.is_floating_point()}
    whole = state.precision == Precision.FP32 and floats <= {torch.float32, torch.float64}
    exact = whole and state.device.name == "cpu"  # a GPU may multiply with fewer bits

    def loss(batch: Any) -> float:
        # A model may change its batch in place
        moved = state.device.batch_to_device(copy.deepcopy(batch))
        part = form.parts(moved, form.rows(moved))[0]
        model = state.model
        model = model.module if isinstance(model, DistributedDataParallel) else model
        found = unwrap(model).loss(model(part), part)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise TypeError(f"its loss is a {type(found).__name__}, and no single number")
        return float(found)

    def training(batch: Any) -> float:
        with _training(modules, buffers):
            return loss(batch)

    modules = [module for module in state.model.modules() if module.training]
    buffers = list(state.model.buffers())
    try:
        with (
            random_numbers_kept(),
            untouched(state.model),
            torch.compiler.set_stance("force_eager"),
            get_precision_context(state.precision, state.precision_config),
        ):
            batch = form.transformed(loader.glance())
            mine = loss_form(
                batch, loss, training=training, tolerance=_EXACT if exact else _ROUNDED
            )
    except Exception as error:  # of the user's collate function
        mine = LossForm(in_words(error), in_words(error))
    every = dist.all_gather_object(mine)
    return LossForm(*(next(filter(None, reasons), "") for reasons in zip(*every, strict=True)))


@contextmanager
def _training(modules: Sequence[Module], buffers: Sequence[Tensor]) -> Iterator[None]:
    """Training mode of modules inside the context, then eval mode and the same buffers again."""
    before = [buffer.clone() for buffer in buffers]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
