"""Wrappers around a model."""

import torch
from scored_models import language_model, linear
from torch import nn

from attent_stream.model.wrapping import is_compiled, is_sharded, model_name, unwrap


def test_a_compiled_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    assert unwrap(compiled) is model and unwrap(model) is model
    assert is_compiled(compiled) and not is_compiled(model)
    assert is_compiled(nn.Sequential(compiled))
    replaced = nn.Linear(2, 2)
    replaced.forward = torch.compile(replaced.forward, backend="eager")  # as Composer does
    assert is_compiled(replaced)
    inner = nn.Linear(2, 2)
    inner.compile(backend="eager")
    assert is_compiled(nn.Sequential(inner))
    assert not is_sharded(compiled)


def test_names():
    assert model_name(language_model("gpt2")) == "GPT2LMHeadModel"
    assert model_name(linear()) == "Linear" and model_name(nn.ReLU()) == "ReLU"
