"""Weights of lessons reach the loss. Oracle: the weighted loss written out, in float64."""

import copy

import pytest
import torch
import transformers
from composer.models import ComposerModel, HuggingFaceModel
from fits import VOCAB, make_model
from token_losses import text, token_losses
from torch.nn import functional as F

from attent_stream.base.errors import AttentError
from attent_stream.effects.weighting import WeightedOutputs
from attent_stream.model.batch import split_batch

WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.25, 3.0], dtype=torch.float64)


class Classifier(ComposerModel):
    """(input, target) batches, a loss of the user's own."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        )
        self.reduction = reduction

    def forward(self, batch):
        return self.layers(batch[0])

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs, batch[1], reduction=self.reduction)


class Fused(Classifier):
    """Its loss does not come from its outputs."""

    def forward(self, batch):
        self.inside = F.cross_entropy(self.layers(batch[0]), batch[1])
        return self.layers(batch[0])

    def loss(self, outputs, batch):
        return self.inside


class TwoHeads(Classifier):
    """Two outputs of a batch's samples."""

    def forward(self, batch):
        return self.layers(batch[0]), 2 * self.layers(batch[0])


def images(rows: int = 5) -> tuple:
    made = torch.Generator().manual_seed(2)
    return torch.randn(rows, 6, dtype=torch.float64, generator=made), torch.randint(
        3, (rows,), generator=made
    )


def llama() -> HuggingFaceModel:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    return HuggingFaceModel(
        transformers.LlamaForCausalLM(config), tokenizer=None, use_logits=True, shift_labels=True
    )


def gradients(model) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def train_step(
    model, batch, microbatch: int, weighted: WeightedOutputs | None
) -> list[torch.Tensor]:
    """Gradients of a batch as Composer accumulates them over its microbatches."""
    model.zero_grad()
    parts = split_batch(batch, microbatch)
    for part in parts:
        if weighted:
            weighted.begin_forward()
        outputs = model(part)
        if weighted:
            weighted.forward_done(outputs, part)
        loss = model.loss(outputs, part)
        if weighted:
            weighted.loss_done(loss)
        (loss * len(part[1] if isinstance(part, tuple) else part["labels"]) / 5).backward()
    return gradients(model)


@pytest.mark.parametrize("microbatch", [5, 2, 1])
@pytest.mark.parametrize("make", [make_model, llama])
def test_language_models(make, microbatch):
    model = make().double()
    weighted = WeightedOutputs(model)
    weighted.begin_batch(WEIGHTS)
    got = train_step(model, text(), microbatch, weighted)
    expected = copy.deepcopy(model)
    expected.zero_grad()
    for begin in range(0, 5, microbatch):
        part = {name: value[begin : begin + microbatch] for name, value in text().items()}
        sums, counts = token_losses(expected(part), part)
        (
            (WEIGHTS[begin : begin + microbatch] * sums).sum() / counts.sum() * len(sums) / 5
        ).backward()
    for a, b in zip(got, gradients(expected), strict=True):
        torch.testing.assert_close(a, b)
    weighted.begin_batch(None)  # and the next batch is plain again
    for a, b in zip(
        train_step(model, text(), microbatch, weighted),
        train_step(expected, text(), microbatch, None),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_of_the_users_own(reduction):
    model = Classifier(reduction).double()
    weighted = WeightedOutputs(model)
    weighted.begin_batch(WEIGHTS)
    got = [gradient.clone() for gradient in train_step(model, images(), 2, weighted)]
    model.zero_grad()
    for begin in range(0, 5, 2):
        inputs, target = (part[begin : begin + 2] for part in images())
        losses = WEIGHTS[begin : begin + 2] * F.cross_entropy(
            model.layers(inputs), target, reduction="none"
        )
        ((losses.mean() if reduction == "mean" else losses.sum()) * len(target) / 5).backward()
    for a, b in zip(got, gradients(model), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("kind", "says"),
    [(Fused, "have no effect on this model's loss"), (TwoHeads, "got 2 among outputs of shapes")],
)
def test_what_cannot_be_weighted_is_refused(kind, says):
    model = kind("mean").double()
    weighted = WeightedOutputs(model)
    weighted.begin_batch(WEIGHTS)
    with pytest.raises(AttentError, match=says):
        train_step(model, images(), 5, weighted)


def test_a_forward_that_failed_leaves_no_hook():
    model = make_model()
    weighted = WeightedOutputs(model)
    weighted.begin_batch(WEIGHTS)
    weighted.begin_forward()
    weighted.begin_batch(WEIGHTS)  # Composer tries again with smaller microbatches
    assert not any(module._forward_hooks for module in model.modules())
    weighted.begin_forward()
    with pytest.raises(
        AttentError, match="expected the batch's 5 lessons in its micro-batches, got 6 samples"
    ):
        weighted.forward_done(model(text(6)), text(6))
