"""What a batch and outputs must hold to be scored."""

import pytest
import torch
from composer.models import ComposerModel
from scored_models import INPUTS, language_model, linear, text_batch

from attent_stream.base.errors import ScoreError
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


class Returns(ComposerModel):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, batch):
        return self.outputs

    def loss(self, outputs, batch):
        return outputs


@pytest.mark.parametrize(
    "outputs, message",
    [
        (torch.tensor(3.0), r"give no score per sample, got a tensor of shape \(\)"),
        (
            {"loss": torch.tensor(3.0)},
            r"got keys \['loss'\] without logits; pass score=callable, \(model, batch\)",
        ),
        ({"logits": None, "loss": torch.tensor(1.0)}, "without logits"),
        ((torch.tensor(3.0),), "without logits"),
        (None, "got a NoneType"),
        (
            torch.zeros(3, 5),
            r"outputs of shape \(3, 5\) for torch.int64 labels of shape \(6,\); pass "
            r"score=callable",
        ),
    ],
)
def test_outputs_without_a_score_say_what_to_do(outputs, message):
    model = Returns(outputs)
    with pytest.raises(ScoreError, match=message):
        score_batch(build_scorer("residual", model), model, (INPUTS, torch.zeros(6).long()), 6)


def test_a_batch_without_labels_says_what_to_do():
    model, batch = language_model("llama"), text_batch()
    del batch["labels"]
    scorer = build_scorer("residual", model)
    with pytest.raises(
        ScoreError,
        match=r"has keys \['attention_mask', 'input_ids', 'total_tokens'\]; add labels or pass",
    ):
        score_batch(scorer, model, batch, 6)
    for bad in ((INPUTS,), INPUTS, (INPUTS, [1, 2])):
        with pytest.raises(ScoreError, match="must be a mapping with 'labels' or"):
            score_batch(build_scorer("loss", linear()), linear(), bad, 6)
