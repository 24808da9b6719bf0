"""Scores against a float64 reference in plain loops, on the kinds of models and batches that
Composer trains.
"""

import copy
import functools
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
import transformers
from composer.models import ComposerClassifier, ComposerModel, HuggingFaceModel
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SMALL, Logits, vit
from torch.nn import functional as F
from transformers import BatchEncoding

from attent_stream.base.errors import ScoreError
from attent_stream.model import reference
from attent_stream.model.batch import batch_length, split_batch
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

SCORES = ("loss", "residual")  # of every kind of target; the others: test_scores.py
VOCAB, LENGTH = 50, 12


def brute_force(logits, labels, *, shift=False):
    """{score: (B,)} in float64, token by token; logits (B, T, V) or (B, V), labels (B, T)
    or (B,).
    """
    logits, labels = logits.detach().double().numpy(), np.asarray(labels)
    if labels.ndim == 1:
        logits, labels = logits[:, None], labels[:, None]
    result = {"residual": [], "loss": []}
    for sample, targets in zip(logits, labels, strict=True):
        losses, squares = [], []
        for position in range(len(targets)):
            source = position - 1 if shift else position
            if targets[position] == -100 or source < 0:
                continue
            z = sample[source] - sample[source].max()
            p = np.exp(z) / np.exp(z).sum()
            losses.append(-np.log(p[targets[position]]))
            squares.append(((p - np.eye(len(p))[targets[position]]) ** 2).sum())
        result["loss"].append(np.mean(losses) if losses else -np.inf)
        result["residual"].append(np.sqrt(np.mean(squares)) if squares else -np.inf)
    return {name: np.array(values) for name, values in result.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hugging_face(model, **settings):
    return HuggingFaceModel(model, use_logits=True, **settings).eval()


@functools.cache
def language_model(name):
    torch.manual_seed(0)
    if name == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=VOCAB, **SMALL))
    elif name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64
        )
        model = transformers.GPT2LMHeadModel(config)
    elif name == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCAB, **SMALL))
    else:
        sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=VOCAB, decoder_start_token_id=0, **sizes)
        )
    return hugging_face(model)


def text_batch(samples=6):
    """Right-padded text; sample 3 has no valid label at all."""
    ids = torch.randint(1, VOCAB, (samples, LENGTH), generator=generator(1))
    lengths = torch.tensor([12, 7, 3, 12, 5, 9])[:samples]
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    labels = torch.where(mask == 1, ids, -100)
    labels[3] = -100
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": labels,
        "total_tokens": lengths.tolist(),
    }


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)]
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_token_scores_are_the_formulas(dtype, tolerance, scale):
    logits = (torch.randn(4, 9, 37, generator=generator()) * scale).to(dtype)
    labels = torch.randint(0, 37, (4, 9), generator=generator(1))
    labels[0, :4] = -100
    nll, residual_sq = reference.token_scores(logits, labels)
    exact = logits.double()
    keep = labels != -100
    index = torch.where(keep, labels, 0)
    expected_nll = -exact.log_softmax(-1).gather(-1, index[..., None])[..., 0] * keep
    expected_sq = (exact.softmax(-1) - F.one_hot(index, 37)).square().sum(-1) * keep
    assert (
        nll.dtype
        == residual_sq.dtype
        == (torch.float64 if dtype == torch.float64 else torch.float32)
    )
    torch.testing.assert_close(nll.double(), expected_nll, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(residual_sq.double(), expected_sq, rtol=tolerance, atol=tolerance)
    assert (residual_sq >= 0).all() and (nll >= 0).all()


def test_a_token_that_is_almost_sure_keeps_its_digits():
    logits = torch.tensor([[12.0, 0.0, 0.0], [20.0, 0.0, 1.0]])
    nll, residual_sq = reference.token_scores(logits, torch.zeros(2, dtype=torch.long))
    p = logits.double().softmax(-1)
    expected = (p[:, 1:].sum(-1)) ** 2 + p[:, 1:].square().sum(-1)
    torch.testing.assert_close(residual_sq.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(nll.double(), -torch.log1p(-p[:, 1:].sum(-1)), rtol=1e-5, atol=0)


def test_token_scores_do_not_depend_on_chunks(monkeypatch):
    logits = torch.randn(3, 7, 11, generator=generator())
    labels = torch.randint(0, 11, (3, 7), generator=generator(1))
    whole = reference.token_scores(logits, labels)
    sizes = []
    rows = reference._row_scores
    monkeypatch.setattr(reference, "_CHUNK_ELEMENTS", 25)
    monkeypatch.setattr(
        reference, "_row_scores", lambda z, labels: (sizes.append(z.numel()), rows(z, labels))[1]
    )
    before = logits.clone()
    for chunked, expected in zip(reference.token_scores(logits, labels), whole, strict=True):
        torch.testing.assert_close(chunked, expected, rtol=0, atol=0)
    assert max(sizes) <= 25 and len(sizes) == 11
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 3\), got \(2, 4\)"):
        reference.token_scores(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"target must have shape \(2, 3\), got \(3, 2\)"):
        reference.regression_residual(torch.zeros(2, 3), torch.zeros(3, 2))


def test_sample_mean_counts_valid_entries_only():
    values = torch.tensor([[1.0, 2.0, float("nan")], [5.0, 5.0, 5.0], [4.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    mean = reference.sample_mean(values, mask)
    assert mean[0] == 1.5 and torch.isnan(mean[1]) and mean[2] == pytest.approx(4 / 3)
    assert reference.sample_mean(torch.zeros(0, 3), torch.zeros(0, 3).bool()).shape == (0,)


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


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
@pytest.mark.parametrize("score", SCORES)
def test_scores_do_not_depend_on_the_microbatch(name, score):
    model, batch = language_model(name), text_batch()
    scorer = build_scorer(score, model)
    whole = score_batch(scorer, model, batch, None)
    for size in (1, 2, 4, 5, 100):
        torch.testing.assert_close(
            score_batch(scorer, model, batch, size), whole, equal_nan=True, rtol=1e-5, atol=1e-6
        )


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
    logits[2, 8, 0] = poison  # behind the end of sample 2: not valid, so it does not count
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


def linear(outputs=5, **settings):
    torch.manual_seed(0)
    return ComposerClassifier(torch.nn.Linear(8, outputs), num_classes=outputs, **settings).eval()


INPUTS = torch.randn(6, 8, generator=generator(3))


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


def squared_norm(model, batch):
    return model(batch).square().sum(-1)


def test_a_callable_scores_any_model():
    model = linear()
    batch = (INPUTS, torch.zeros(6))
    scorer = build_scorer(squared_norm, model)
    assert scorer.name == "squared_norm" and not scorer.reads_outputs
    scores = score_batch(scorer, model, batch, 4)
    torch.testing.assert_close(scores, model.module(INPUTS).detach().square().sum(-1))
    assert scores.dtype == torch.float32 and not scores.requires_grad
    assert build_scorer(functools.partial(squared_norm), model).name == "squared_norm"


@pytest.mark.parametrize(
    "score, message",
    [
        (lambda model, batch: model(batch), r"shape \(6,\), got torch.float32 of shape \(6, 5\)"),
        (
            lambda model, batch: model(batch).argmax(-1),
            r"float tensor of shape \(6,\), got torch.int64",
        ),
        (lambda model, batch: 1.0, r"must return a float tensor of shape \(6,\), got a float"),
        (lambda model, batch: model(batch).sum(), r"got torch.float32 of shape \(\)"),
    ],
)
def test_a_callables_result_is_checked(score, message):
    model = linear()
    with pytest.raises(ScoreError, match=message):
        score_batch(build_scorer(score, model), model, (INPUTS, torch.zeros(6)), 6)


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


def test_an_unknown_score_lists_the_good_ones():
    for bad in ("residal", None, 3):
        with pytest.raises(
            ScoreError,
            match="score must be one of residual, loss, grad_norm, entropy, margin, or a callable",
        ):
            build_scorer(bad, linear())


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


Pair = namedtuple("Pair", "x y")


def test_batches_of_every_form_are_split():
    x, y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
    scalar, names = torch.tensor(3.0), list("abcde")
    assert [len(part) for part in split_batch(x, 2)] == [2, 2, 1]
    parts = split_batch(
        {"x": x, "n": names, "mode": "text", "s": scalar, "other": [1, 2], "in": {"y": y}}, 3
    )
    assert [list(part) for part in parts] == [["x", "n", "mode", "s", "other", "in"]] * 2
    assert parts[1]["n"] == ["d", "e"] and parts[1]["mode"] == "text" and parts[1]["s"] is scalar
    assert parts[1]["other"] == [1, 2] and parts[1]["in"]["y"].tolist() == [3, 4]
    for form in (tuple, list):
        parts = split_batch(form([x, y]), 3)
        assert [type(part) for part in parts] == [form] * 2 and parts[1][1].tolist() == [3, 4]
    assert split_batch(Pair(x, y), 4)[1].y.tolist() == [4]
    encoding = BatchEncoding({"input_ids": x, "labels": y})
    assert batch_length(encoding) == 5 and split_batch(encoding, 4)[1]["labels"].tolist() == [4]
    assert split_batch(encoding, 5)[0] is encoding
    two = split_batch(((x[:2], x[:2] + 1), y[:2]), 1)  # two inputs, two samples
    assert len(two[1][0]) == 2 and torch.equal(two[1][0][1], x[1:2] + 1)
    ragged = split_batch(([x[:1], x[:3]], y[:2]), 1)  # a list of samples of different lengths
    assert torch.equal(ragged[1][0][0], x[:3]) and ragged[1][1].tolist() == [1]
    assert batch_length(OrderedDict(list_of_tensors=[x, x], labels=y)) == 5
    assert batch_length({"rope": torch.zeros(3, 5), "labels": y}) == 5


@given(st.integers(1, 20), st.integers(1, 25))
@settings(deadline=None)
def test_parts_are_whole_and_in_order(length, size):
    batch = {"x": torch.arange(length), "n": list(range(length))}
    parts = split_batch(batch, size)
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert sum((part["n"] for part in parts), []) == batch["n"]
    assert [batch_length(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert 1 <= batch_length(parts[-1]) <= size


def test_mistakes_in_splitting():
    with pytest.raises(ValueError, match="microbatch must be an integer of at least 1, got 0"):
        split_batch(INPUTS, 0)
    for bad in ({"a": 1}, "text", (), torch.tensor(1.0)):
        with pytest.raises(ScoreError, match="must hold a tensor"):
            batch_length(bad)
