"""Leaves a model and its random numbers as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; outside, every module's mode and torch's RNG streams are
    as before.

    Modules are put back one by one: a frozen part that was in eval mode while the rest trained
    stays so.

    The last step's gradients are out of sight inside, as they are in a training forward:
    torch.compile looks at them, and under FSDP1 they are shards that do not fit the whole
    parameters of a forward. DDP sends no buffers around inside.
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
    """No collectives in DDP's forward, and none forgotten in the next."""
    if not isinstance(model, DistributedDataParallel):
        yield
        return
    pending, model.require_forward_param_sync = model.require_forward_param_sync, False
    try:
        yield
    finally:
        model.require_forward_param_sync = pending
