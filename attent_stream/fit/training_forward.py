"""A forward with its loss as in training, to find how the loss reads the model's outputs."""

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.reading import tensors_of
from attent_stream.model.trained import Trained
from attent_stream.model.wrapping import is_sharded, unwrap


def training_forward(model: Module, form: BatchForm, batch: Any, size: int) -> Trained:
    """Forward the first ``size`` samples of a batch, or one if memory runs out.

    Args:
        model: The learner, wrapped as in training.
        form: Counts and splits batches.
        batch: On the learner's device. It is not changed.
        size: Number of samples.

    Raises:
        ScoreError: The batch has no tensor ``labels``, and the loss failed.
    """
    try:
        return _forward(model, form, batch, size)
    except RuntimeError as error:
        # All ranks of a sharded model would have to retry.
        if size == 1 or is_sharded(model) or not out_of_memory(error):
            raise
    return _forward(model, form, batch, 1)


def _forward(model: Module, form: BatchForm, batch: Any, size: int) -> Trained:
    # A model may change its batch in place.
    part = copy.deepcopy(form.parts(batch, size)[0])
    rows = form.rows(part)
    model = model.module if isinstance(model, DistributedDataParallel) else model
    # The loss's graph shows which labels it uses. A sharded model cannot build one here, as its
    # forward needs a backward. Eager mode avoids another compilation for this one forward.
    graph = not is_sharded(model)
    with torch.set_grad_enabled(graph), torch.compiler.set_stance("force_eager"):
        try:
            outputs = model(part)
            loss = unwrap(model).loss(outputs, part)
        except (KeyError, ValueError, TypeError) as error:
            if isinstance(part, Mapping) and not isinstance(part.get("labels"), Tensor):
                raise ScoreError(
                    f"the batch has no tensor 'labels', it has {describe(part)}"
                ) from error
            raise
        if isinstance(part, Mapping) and "labels" in part and not tensors_of(outputs, rows):
            # A head fused with the loss returns logits only without labels.
            with suppress(KeyError, ValueError, TypeError):
                outputs = model({key: value for key, value in part.items() if key != "labels"})
    return Trained.of(outputs, part, loss, rows)
