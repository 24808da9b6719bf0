"""Traits of models."""

import functools

import pytest
import torch
import transformers
from composer.models import ComposerClassifier
from scored_models import language_model, linear
from torch.nn import functional as F

from attent_stream.model.reading import BINARY, PROBABILITIES, REGRESSION
from attent_stream.model.traits import Traits, function_name, learns_positions, weights_trained


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


POSITIONS = {
    "GPT2": ({"n_embd": 8, "n_layer": 1, "n_head": 2}, True),
    "OPT": ({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}, True),
    "GPTBigCode": ({"n_embd": 8, "n_layer": 1, "n_head": 2}, True),
    "Llama": ({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}, False),
    "GPTNeoX": ({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}, False),
    "Bloom": ({"hidden_size": 8, "n_layer": 1, "n_head": 2}, False),
    "Mpt": ({"d_model": 8, "n_layers": 1, "n_heads": 2}, False),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_learnt_positions(name):
    """A position's own vector counts where it is trained; rotary and relative ones have none."""
    sizes, learnt = POSITIONS[name]
    config = getattr(transformers, f"{name}Config")(vocab_size=31, **sizes)
    kind = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, name + kind)(config)
    assert learns_positions(model) is learnt
    model.requires_grad_(False)
    assert not learns_positions(model)


def test_learnt_positions_of_ones_own_model():
    class Own(torch.nn.Module):
        def __init__(self, **weights):
            super().__init__()
            for name, weight in weights.items():
                self.register_parameter(name, torch.nn.Parameter(weight))

    assert learns_positions(Own(pos_emb=torch.zeros(1, 8, 4)))
    assert not learns_positions(Own(relative_position_bias_table=torch.zeros(8, 4)))
    assert not learns_positions(Own(composition=torch.zeros(8, 4), positive=torch.zeros(2)))


def test_weights_are_counted_once():
    """Those of two names, too, as a language model's head often is its embedding."""
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    assert weights_trained(model) == (15, 20)
