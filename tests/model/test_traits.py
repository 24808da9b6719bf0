"""Traits of models."""

import functools

import pytest
import torch
from composer.models import ComposerClassifier
from scored_models import language_model, linear
from torch.nn import functional as F

from attent_stream.model.reading import BINARY, PROBABILITIES, REGRESSION
from attent_stream.model.traits import Traits, function_name


@pytest.mark.parametrize("name, shift", [("llama", True), ("bert", False), ("t5", False)])
def test_language_models(name, shift):
    traits = Traits.of(language_model(name))
    assert traits.shift_labels == shift and "input_ids" in traits.forward_args
    assert traits.encoder_decoder == (name == "t5")


@pytest.mark.parametrize(
    "loss, dense",
    [
        (torch.nn.MSELoss(), REGRESSION),
        (torch.nn.BCEWithLogitsLoss(), BINARY),
        (functools.partial(F.cross_entropy, label_smoothing=0.1), PROBABILITIES),
        (lambda z, y: z.mean(), REGRESSION),
    ],
)
def test_a_dense_target_is_what_the_loss_takes(loss, dense):
    traits = Traits.of(linear(loss_fn=loss))
    assert traits.dense == dense and traits.forward_args is None


def test_names_of_functions():
    assert function_name(functools.partial(functools.partial(sorted, key=len))) == "sorted"
    assert function_name(torch.nn.ReLU()) == "ReLU"
    assert isinstance(linear(), ComposerClassifier)
