"""Leaves a model and its random numbers as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; outside, every module's mode and torch's RNG streams are as before.

    Modules are put back one by one: a frozen part that was in eval mode while the rest trained stays so.
    """
    training = [module for module in model.modules() if module.training]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
