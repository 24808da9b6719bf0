"""A guarded model is as it was before."""

import pytest
import torch
from torch import nn

from attent_stream.model.guard import untouched


def test_modes_gradients_and_random_numbers_are_restored():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3))
    model[2].eval()  # frozen
    model(torch.randn(4, 3)).sum().backward()
    modes = [module.training for module in model.modules()]
    grads = [param.grad for param in model.parameters()]
    random_state = torch.get_rng_state()
    with pytest.raises(KeyError), untouched(model):
        assert not any(module.training for module in model.modules())
        assert all(param.grad is None for param in model.parameters())
        assert not torch.is_grad_enabled()
        torch.randn(5)
        raise KeyError
    assert [module.training for module in model.modules()] == modes
    assert all(a is b for a, b in zip((p.grad for p in model.parameters()), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state) and torch.is_grad_enabled()
