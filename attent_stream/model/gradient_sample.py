"""Some coordinates of a model's gradient, of which inner products can be estimated."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

COORDINATES = 1 << 20  # in all, about


def gradient_sample(params: Sequence[Parameter], most: int = COORDINATES) -> Tensor:
    """Every n-th coordinate of each gradient, as this rank has it.

    The same coordinates are taken each time, so that inner products of samples estimate those of
    gradients, but for one factor. n is odd, so that no column of an even width is left out.

    Args:
        params: Of the optimizers.
        most: Coordinates of the sample, about.

    Returns:
        A copy, float32 of shape (n,), whose length depends on the parameters alone. A gradient
        that is not there, or sparse, is 0.
    """
    local = [_local(param) for param in params]
    every = -(-sum(param.numel() for param in local) // most) | 1
    taken = []
    for param, whole in zip(local, params, strict=True):
        grad = None if whole.grad is None else _local(whole.grad)
        if grad is None or grad.layout != torch.strided or grad.numel() != param.numel():
            taken.append(param.new_zeros(-(-param.numel() // every), dtype=torch.float32))
        else:
            taken.append(grad.reshape(-1)[::every].float())
    return torch.cat(taken) if taken else torch.zeros(0)


def _local(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
