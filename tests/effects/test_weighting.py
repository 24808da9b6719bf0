"""Weights of lessons reach the loss. Oracle: the weighted loss written out, in float64."""

import copy

import numpy as np
import pytest
import torch
import transformers
from composer import Callback, Trainer
from composer.models import ComposerModel, HuggingFaceModel
from corpora import write_ids, write_tokens
from fits import BATCH, LENGTH, VOCAB, make_model
from fits import make_loader as make_token_loader
from taught import make_loader
from token_losses import text, token_losses
from torch.nn import functional as F

from attent_stream import AtteNT
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


class Recorded(Callback):
    """Batches and weights as they are trained with."""

    def __init__(self) -> None:
        self.steps = []

    def before_train_batch(self, state, logger):
        batch = {name: value.clone() for name, value in state.batch.items()}
        self.steps.append((batch, state.train_dataloader.epoch.lesson[1].copy()))


def test_a_taught_run_trains_on_its_weights(tmp_path):
    """Oracle: the run written out, with the loss weighted by hand."""
    loader = make_token_loader(
        write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB), window=3
    )
    model, recorded = make_model().double(), Recorded()
    taught = AtteNT(
        keep=0.7, score="loss", select="prune", interval="1dur", warmup="1ep", record="always"
    )
    Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=[taught],
        callbacks=[recorded],
        progress_bar=False,
        device_train_microbatch_size=3,
    ).fit()
    weights = [weights for _, weights in recorded.steps]
    assert len({len(w) for w in weights}) == 1 and any(
        (w != 1).any() for w in weights[len(weights) // 2 :]
    )
    expected = make_model().double()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for batch, weight in recorded.steps:
        optimizer.zero_grad()
        for begin in range(0, BATCH, 3):
            part = {name: value[begin : begin + 3] for name, value in batch.items()}
            sums, counts = token_losses(expected(part), part)
            losses = torch.from_numpy(weight[begin : begin + 3]).double() * sums
            (losses.sum() / counts.sum() * len(sums) / BATCH).backward()
        optimizer.step()
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("select", ["prune", "unbiased"])
def test_weights_are_resumed(tmp_path, select):
    """From every lesson: the ids and weights that would have followed."""
    data = {
        "local": write_ids(tmp_path / "data", 160),
        "batch_size": 4,
        "num_canonical_nodes": 1,
        "window": 8,
        "gap": 2,
    }
    teacher = {"select": select, "keep": 0.6}

    def steps(loader, states=None):
        made = []
        for batch in loader:
            loader.teach(lambda batch: batch["difficulty"])
            ids, weights = loader.epoch.lesson
            assert batch["id"].tolist() == ids.tolist()
            made.append((ids.tolist(), weights.tolist()))
            loader.teacher.clock.batches += 1
            if states is not None:
                states.append(loader.dataset.state_dict(4 * len(made), True))
        return made

    states = []
    whole = steps(make_loader(data, {}, teacher), states)
    assert len({w for _, weights in whole for w in weights}) > 2
    assert np.mean([w for _, weights in whole for w in weights]) == pytest.approx(1, abs=0.1)
    for done, state in enumerate(states[:-1], start=1):
        again = make_loader(data, {}, teacher)
        again.dataset.load_state_dict(state)
        again.teacher.clock.batches = done
        assert steps(again) == whole[done:]
