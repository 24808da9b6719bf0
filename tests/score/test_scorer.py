"""Scores against a float64 reference, on the kinds of models and batches that Composer trains."""

import copy
import functools

import numpy as np
import pytest
import torch
import transformers
from composer.models import ComposerClassifier, ComposerModel
from scored_models import (
    INPUTS,
    SCORES,
    VOCAB,
    brute_force,
    generator,
    hugging_face,
    language_model,
    linear,
    text_batch,
)
from small_models import SMALL, Logits, vit
from torch.nn import functional as F

from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


@pytest.mark.parametrize("name, shift", [("llama", True), ("gpt2", True), ("bert", False)])
@pytest.mark.parametrize("score", SCORES)
def test_language_models(name, shift, score):
    model, batch = language_model(name), text_batch()
    with torch.no_grad():
        logits = model.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    expected = brute_force(logits, batch["labels"], shift=shift)[score]
    scores = score_batch(build_scorer(score, model), model, batch, 6)
    assert scores.dtype == torch.float32 and scores.shape == (6,) and not scores.requires_grad
    assert np.isneginf(expected[3])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
def test_the_loss_of_one_sample_is_the_models_own(name):
    model, batch = language_model(name), text_batch()
    scores = score_batch(build_scorer("loss", model), model, batch, 2)
    for i in (0, 1, 2, 4, 5):
        sample = {key: value[i : i + 1] for key, value in batch.items()}
        with torch.no_grad():
            own = model.loss(model.forward(sample), sample)
        assert scores[i].item() == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_scoring_touches_nothing(name):
    model, batch = language_model(name), text_batch()
    copy = {
        key: value.clone() if isinstance(value, torch.Tensor) else list(value)
        for key, value in batch.items()
    }
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    score_batch(build_scorer("residual", model), model, batch, 4)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.training and torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(batch) == list(copy)
    for key, value in copy.items():
        assert (
            torch.equal(batch[key], value)
            if isinstance(value, torch.Tensor)
            else batch[key] == value
        )


def test_the_training_forwards_outputs_give_the_same_scores():
    model, batch = language_model("llama"), text_batch()
    scorer = build_scorer("loss", model)
    outputs = model.forward(batch)  # with labels, loss and graph
    scores = scorer.from_outputs(model, outputs, batch)
    assert scorer.reads_outputs and not scores.requires_grad
    expected = score_batch(scorer, model, batch, None)
    torch.testing.assert_close(scores, expected, equal_nan=True)
    as_tuple = (outputs["loss"], outputs["logits"])  # config.return_dict = False
    torch.testing.assert_close(
        scorer.from_outputs(model, as_tuple, batch), expected, equal_nan=True
    )


def test_bf16_logits_are_scored_in_float32():
    model, batch = language_model("llama"), text_batch()
    logits = model.forward(batch)["logits"].detach().bfloat16()
    for name, expected in brute_force(logits, batch["labels"], shift=True).items():
        scores = build_scorer(name, model).from_outputs(model, {"logits": logits}, batch)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("score", SCORES)
def test_a_bad_sample_spoils_its_own_score_only(score, poison):
    model, batch = language_model("llama"), text_batch()
    logits = model.forward(batch)["logits"].detach().clone()
    scorer = build_scorer(score, model)
    clean = scorer.from_outputs(model, {"logits": logits}, batch)
    logits[1, 2, 5] = poison
    logits[2, 8, 0] = poison  # after the end of sample 2, so it is ignored
    spoilt = scorer.from_outputs(model, {"logits": logits}, batch)
    assert not torch.isfinite(spoilt[1])
    others = [0, 2, 4, 5]
    torch.testing.assert_close(spoilt[others], clean[others], rtol=0, atol=0)


@pytest.mark.parametrize("score", SCORES)
def test_image_classifiers(score):
    images = torch.randn(4, 3, 16, 16, generator=generator())
    labels = torch.tensor([0, 4, 2, 2])
    model = vit().eval()
    expected = brute_force(model(images).logits, labels)[score]
    wrapped = hugging_face(model)
    batch = {"pixel_values": images, "labels": labels}
    np.testing.assert_allclose(
        score_batch(build_scorer(score, wrapped), wrapped, batch, 3), expected, rtol=1e-5
    )
    classifier = ComposerClassifier(Logits(model), num_classes=5).eval()
    scorer = build_scorer(score, classifier)
    for pair in ((images, labels), [images, labels], (images, F.one_hot(labels, 5).float())):
        np.testing.assert_allclose(score_batch(scorer, classifier, pair, 3), expected, rtol=1e-5)


def test_soft_targets_are_compared_as_probabilities():
    model = linear()
    target = torch.rand(6, 5, generator=generator()).softmax(-1)
    p = model.module(INPUTS).detach().double().softmax(-1)
    got = {
        name: score_batch(build_scorer(name, model), model, (INPUTS, target), 4) for name in SCORES
    }
    np.testing.assert_allclose(got["residual"], (p - target).norm(dim=-1), rtol=1e-5)
    np.testing.assert_allclose(got["loss"], -(target * p.log()).sum(-1), rtol=1e-5)


def test_yes_no_targets_are_compared_after_a_sigmoid():
    target = torch.randint(0, 2, (6, 5), generator=generator())
    torch.manual_seed(0)
    sequence = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=VOCAB, num_labels=5, problem_type="multi_label_classification", **SMALL
        )
    )
    hf, ids = hugging_face(sequence), torch.randint(1, VOCAB, (6, 4), generator=generator())
    plain = linear(loss_fn=functools.partial(F.binary_cross_entropy_with_logits))
    cases = [
        (plain, (INPUTS, target.float()), plain.module(INPUTS)),
        (hf, {"input_ids": ids, "labels": target.float()}, sequence(ids).logits),
    ]
    for model, batch, logits in cases:
        logits = logits.detach()
        p = logits.double().sigmoid()
        expected = {
            "residual": (p - target).square().mean(-1).sqrt(),
            "loss": F.binary_cross_entropy(p, target.double(), reduction="none").mean(-1),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                score_batch(build_scorer(name, model), model, batch, 4), value, rtol=1e-5
            )
    classes = torch.tensor([0, 1, 4, 4, 2, 0])
    scorer = build_scorer("residual", plain)
    one_hot = F.one_hot(classes, 5).float()
    expected = score_batch(scorer, plain, (INPUTS, one_hot), 6)
    torch.testing.assert_close(score_batch(scorer, plain, (INPUTS, classes), 4), expected)


class Regression(ComposerModel):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, outputs)

    def forward(self, batch):
        return self.layer(batch[0])

    def loss(self, outputs, batch):
        return F.mse_loss(outputs, batch[1])


def test_regressions():
    for outputs, shape in ((3, (6, 3)), (1, (6, 1)), (1, (6,))):
        model, target = Regression(outputs).eval(), torch.randn(shape, generator=generator(4))
        difference = (
            (model.layer(INPUTS).detach().double() - target.reshape(6, outputs)).square().mean(-1)
        )
        batch = (INPUTS, target)
        got = {name: score_batch(build_scorer(name, model), model, batch, 4) for name in SCORES}
        np.testing.assert_allclose(got["residual"], difference.sqrt(), rtol=1e-4)
        np.testing.assert_allclose(got["loss"], difference, rtol=1e-4)
    classifier = linear(loss_fn=torch.nn.MSELoss())
    target = torch.rand(6, 5, generator=generator())
    expected = (classifier.module(INPUTS).detach().double() - target).square().mean(-1).sqrt()
    got = score_batch(build_scorer("residual", classifier), classifier, (INPUTS, target), 6)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_dense_classes_come_second_in_pairs():
    torch.manual_seed(0)
    model = ComposerClassifier(torch.nn.Conv2d(3, 5, 1), num_classes=5).eval()
    images = torch.randn(4, 3, 6, 7, generator=generator())
    labels = torch.randint(0, 5, (4, 6, 7), generator=generator())
    labels[1, :3] = -100
    logits = model.module(images).detach()
    scores = score_batch(build_scorer("loss", model), model, (images, labels), 3)
    for i in range(4):
        assert scores[i].item() == pytest.approx(
            F.cross_entropy(logits[i : i + 1], labels[i : i + 1]).item(), rel=1e-5
        )


def test_a_compiled_model_is_read_through(monkeypatch):
    model, batch = language_model("llama"), text_batch()
    compiled = torch.compile(model, backend="eager")
    scorer = build_scorer("residual", compiled)
    assert scorer.traits == build_scorer("residual", model).traits and scorer.traits.shift_labels
    expected = score_batch(scorer, model, batch, 6)
    torch.testing.assert_close(score_batch(scorer, compiled, batch, 6), expected, equal_nan=True)


@pytest.fixture
def process_group(tmp_path):
    if torch.distributed.is_initialized():
        yield
    else:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
        )
        yield
        torch.distributed.destroy_process_group()


def test_a_ddp_model_is_read_through(process_group):
    model, batch = language_model("t5"), text_batch()
    expected = score_batch(build_scorer("loss", model), model, batch, 6)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    scorer = build_scorer("loss", wrapped)
    torch.testing.assert_close(score_batch(scorer, wrapped, batch, 4), expected, equal_nan=True)


def test_an_fsdp2_model_scores_and_trains_on(process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, batch = copy.deepcopy(language_model("llama")), text_batch()
    expected = score_batch(build_scorer("residual", model), model, batch, 6)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    scorer = build_scorer("residual", model)
    torch.testing.assert_close(score_batch(scorer, model, batch, 4), expected, equal_nan=True)
    model.loss(model(batch), batch).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_under_bf16_autocast_the_scores_are_float32_and_close():
    model, batch = language_model("llama"), text_batch()
    scorer = build_scorer("loss", model)
    expected = score_batch(scorer, model, batch, 6)
    with torch.autocast("cpu", torch.bfloat16):
        scores = score_batch(scorer, model, batch, 6)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0.01, atol=0, equal_nan=True)
