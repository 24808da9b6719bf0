"""The formula of floating point operations."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream.bench.flops import Shape, shape_of


def test_flops_are_six_a_weight_and_token_and_attention():
    shape = Shape(weights=1000, layers=2, width=8, positions=16)
    assert shape.run(10, 0) == 10 * (6 * 1000 + 12 * 2 * 8 * 16)
    assert shape.run(0, 30) == pytest.approx(shape.run(10, 0))  # a forward is a third


def test_skipped_work_costs_nothing():
    shape = Shape(weights=1000, layers=2, width=8, positions=16, head=400)
    whole = shape.run(9, 0)
    assert shape.run(9, 0, head=0.25) == pytest.approx(whole - 9 * 6 * 400 * 0.75)
    assert shape.at(0.5).positions == 8 + 1 and shape.at(0.5, extra=0).positions == 8


@pytest.mark.parametrize("tied", [False, True])
def test_a_shape_counts_the_head_and_no_embeddings(tied):
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        shape = shape_of(LlamaForCausalLM(config), config, 8)
    layer = 4 * 16 * 16 + 3 * 16 * 24
    assert shape == Shape(weights=2 * layer + 800, layers=2, width=16, positions=8, head=800)
