"""Forwards that leave a model and its random numbers unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Set eval mode and no gradients inside the context, then restore each module's mode.

    Torch's random number streams are restored too. DDP does not broadcast its buffers inside.

    Gradients of the last step are hidden inside, as in a training forward. torch.compile looks at
    them, and under FSDP1 they are shards that do not fit the whole parameters of a forward.
    """
    training = [module for module in model.modules() if module.training]
    grads = [(param, param.grad) for param in model.parameters() if param.grad is not None]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), _silent(model):
        model.eval()
        for param, _ in grads:
            param.grad = None
        try:
            yield
        finally:
            for param, grad in grads:
                param.grad = grad
            for module in training:
                module.training = True


@contextmanager
def _silent(model: torch.nn.Module) -> Iterator[None]:
    """Prevent collectives in DDP's forward. The next forward outside makes those that are due."""
    if not isinstance(model, DistributedDataParallel):
        yield
        return
    pending, model.require_forward_param_sync = model.require_forward_param_sync, False
    try:
        yield
    finally:
        model.require_forward_param_sync = pending
