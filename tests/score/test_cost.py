"""The cost of a way of scoring, counted by hand."""

import pytest
from fits import VOCAB, make_model

from attent_stream.model.output_head import find_head
from attent_stream.score.cost import ModelCost, model_cost
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import FULL, Fidelity, Tokens


def test_cost_counts_what_is_multiplied():
    model = make_model()  # GPT-2: two blocks of width 16
    counted = model_cost(model, find_blocks(model), find_head(model).module, full_precision=True)
    assert counted == ModelCost(
        blocks=2, block=12 * 16 * 16, width=16, head=16 * VOCAB, full_precision=True
    )
    block, head, attention = 12 * 16 * 16, 16 * VOCAB, 16 * 100
    whole = 2 * (block + attention) + head
    assert counted.of(FULL, 100) == 1.0
    assert counted.of(Fidelity(layers=1, tokens=Tokens(share=0.25)), 100) == pytest.approx(
        (block + attention + head / 4) / whole
    )
    first = Fidelity(tokens=Tokens(share=0.25, take="first"))
    assert counted.of(first, 100) == pytest.approx((2 * (block + attention / 4) + head) / 4 / whole)
    assert counted.of(Fidelity(precision="amp_bf16"), 100) == 0.5
    image = ModelCost(blocks=4, block=10, width=0, head=0, full_precision=False)
    assert (
        image.of(Fidelity(resolution=0.5, patches=0.5, layers=2, precision="amp_bf16"), 1)
        == 0.25 * 0.5 * 0.5
    )
