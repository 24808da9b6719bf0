"""More scores. Oracles: autograd and the formulae, in float64."""

import numpy as np
import pytest
import torch
import transformers
from composer.models import ComposerClassifier
from head_models import MODELS, build, text, wrapped
from small_models import Logits, vit
from torch.nn import functional as F

from attent_stream import AtteNT
from attent_stream.base.errors import ScoreError
from attent_stream.experimental import uncertainty
from attent_stream.score import grad_norm
from attent_stream.score.build import build_scorer
from attent_stream.score.grad_norm import HeadInputs, classifier_grad_norms, head_grad_norms
from attent_stream.score.microbatches import score_batch
from attent_stream.score.scores import SCORES

FAMILIES = ("llama", "gpt2", "bert")


def head_inputs(tokens: int, width: int, classes: int, **changes) -> HeadInputs:
    made = torch.Generator().manual_seed(tokens * width)
    labels = torch.randint(classes, (4, tokens), generator=made)
    labels[torch.rand(labels.shape, generator=made) < 0.3] = -100
    labels[2] = -100
    labels[0, 0] = 1
    hidden = torch.randn(4, tokens, width, dtype=torch.float64, generator=made)
    weight = torch.randn(classes, width, dtype=torch.float64, generator=made)
    return HeadInputs(hidden=hidden, weight=weight, labels=labels, **changes)


def autograd_norms(head: HeadInputs) -> list[float]:
    norms = []
    for hidden, labels in zip(head.hidden, head.labels, strict=True):
        weight = head.weight.clone().requires_grad_()
        z = head.scale * F.linear(hidden, weight, head.bias)
        z = z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)
        norm = torch.autograd.grad(F.cross_entropy(z, labels), weight)[0].norm().item()
        norms.append(norm if (labels != -100).any() else np.nan)
    return norms


# Products of tokens, and the gradient itself
@pytest.mark.parametrize(("tokens", "width"), [(3, 8), (9, 5), (1, 1)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"softcap": 3.0},
        {"scale": 0.5, "softcap": 2.0},
        {"bias": torch.arange(37.0).double() / 20},
    ],
)
@pytest.mark.parametrize("elements", [2**23, 60])  # all classes at once, and in tiles
def test_grad_norm_is_autograds(monkeypatch, tokens, width, changes, elements):
    monkeypatch.setitem(grad_norm._ELEMENTS, "cpu", elements)
    if elements == 60:
        monkeypatch.setattr(
            grad_norm,
            "max",
            lambda *numbers: 10 if numbers[0] == 1024 else max(*numbers),
            raising=False,
        )
    head = head_inputs(tokens, width, 37, **changes)
    got = head_grad_norms(head)
    assert got.dtype == torch.float64 and got[2].isnan()
    np.testing.assert_allclose(got, autograd_norms(head), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grad_norm_in_fewer_bits(dtype):
    head = head_inputs(6, 16, 37)
    small = HeadInputs(
        hidden=head.hidden.to(dtype), weight=head.weight.to(dtype), labels=head.labels
    )
    got = head_grad_norms(small)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(
        got, autograd_norms(head), rtol=1e-5 if dtype == torch.float32 else 0.05
    )


def test_what_padding_holds_does_not_count():
    head = head_inputs(6, 8, 37)
    spoilt = head.hidden.masked_fill((head.labels == -100)[..., None], float("nan"))
    changed = HeadInputs(hidden=spoilt, weight=head.weight, labels=head.labels)
    torch.testing.assert_close(head_grad_norms(changed), head_grad_norms(head), equal_nan=True)
    broken = head.hidden.clone()
    broken[0, 0] = float("inf")
    got = head_grad_norms(HeadInputs(hidden=broken, weight=head.weight, labels=head.labels))
    assert not got[0].isfinite() and got[1].isfinite()


def whole_model(name: str, score: str) -> np.ndarray:
    """By the model's own logits, its loss and autograd, sample by sample."""
    model, batch = build(name).double(), text()
    want = []
    for sample in ({key: value[i : i + 1] for key, value in batch.items()} for i in range(5)):
        shift = name != "bert"
        labels = sample["labels"][0, 1:] if shift else sample["labels"][0]
        if (labels == -100).all():
            want.append(-np.inf)
            continue
        head, given = model.model.get_output_embeddings(), []
        hook = head.register_forward_hook(
            lambda module, args, output, given=given: given.append(args[0])
        )
        logits = model({key: value for key, value in sample.items() if key != "labels"})["logits"][
            0
        ]
        hook.remove()
        logits = logits[:-1] if shift else logits
        valid = labels != -100
        if score == "grad_norm":
            hidden = given[0][0, : len(labels)].detach()
            weight = head.weight.detach().clone().requires_grad_()
            loss = F.cross_entropy(F.linear(hidden, weight, head.bias), labels)
            want.append(torch.autograd.grad(loss, weight)[0].norm().item())
            continue
        logits = logits[valid].detach()
        if score == "entropy":
            want.append(-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean().item())
        else:
            own = logits.gather(1, labels[valid][:, None])[:, 0]
            other = logits.scatter(1, labels[valid][:, None], float("-inf")).max(-1).values
            want.append((other - own).mean().item())
    return np.array(want)


@pytest.mark.parametrize("score", ["grad_norm", "entropy", "margin"])
@pytest.mark.parametrize("name", FAMILIES)
def test_language_models(name, score):
    assert name in MODELS
    model, want = build(name), whole_model(name, score)
    for head in ("auto", "reference"):  # from few logits, and at the head
        got = score_batch(build_scorer(score, model, head=head), model, text(), 2)
        assert got.dtype == torch.float32 and got.shape == (5,)
        np.testing.assert_allclose(got, want, rtol=1e-4)
    if score != "grad_norm":
        np.testing.assert_allclose(
            score_batch(build_scorer(score, model, head=None), model, text(), 5), want, rtol=1e-4
        )


@pytest.mark.parametrize("score", ["entropy", "margin"])
def test_rows_in_parts_and_compiled(monkeypatch, score):
    logits = torch.randn(7, 5, 11, generator=torch.Generator().manual_seed(3))
    labels = torch.randint(11, (7, 5), generator=torch.Generator().manual_seed(4))
    labels[1, 2:] = -100
    rows = SCORES.get(score).outputs["classes"]
    whole = rows(logits, labels)
    monkeypatch.setattr(uncertainty, "SMALL", 33)  # three rows at once, by the compiled pass
    torch.testing.assert_close(rows(logits, labels), whole)


def test_entropy_of_a_sure_model_is_finite():
    z = torch.tensor([[0.0, float("-inf"), float("-inf")], [0.0, 0.0, float("-inf")]])
    torch.testing.assert_close(
        uncertainty.entropies(z, torch.zeros(2, dtype=torch.long)),
        torch.tensor([0.0, np.log(2)]).float(),
    )


def test_image_classifiers():
    made = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4, 3, 16, 16, generator=made), torch.tensor([0, 4, 2, 2])
    model = ComposerClassifier(Logits(vit()), num_classes=5).eval()
    want = []
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(model((image[None], label[None])), label[None])
        weight = model.module.inner.classifier.weight
        want.append(torch.autograd.grad(loss, weight)[0].norm().item())
    got = score_batch(build_scorer("grad_norm", model), model, (images, labels), 3)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    for score in ("entropy", "margin"):
        assert score_batch(build_scorer(score, model), model, (images, labels), 3).isfinite().all()
    hidden, logits = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    want = [
        (logits[i].softmax(0) - F.one_hot(labels[i], 5)).norm() * hidden[i].norm() for i in range(3)
    ]
    torch.testing.assert_close(classifier_grad_norms(hidden, logits, labels[:3]), torch.stack(want))


class Behind(torch.nn.Module):
    """Something follows the last linear layer."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x):
        return 2 * self.last(x)


def test_what_cannot_be_scored_is_refused_by_name():
    inputs, classes = torch.randn(4, 8), torch.tensor([0, 1, 2, 3])
    behind = ComposerClassifier(Behind(), num_classes=5)
    with pytest.raises(ScoreError, match="whose last linear layer makes its logits"):
        score_batch(build_scorer("grad_norm", behind), behind, (inputs, classes), 4)
    plain = ComposerClassifier(torch.nn.Linear(8, 5), num_classes=5)
    with pytest.raises(ScoreError, match="for one class a sample, got a loss of its outputs"):
        score_batch(build_scorer("grad_norm", plain), plain, (inputs, torch.rand(4, 5)), 4)
    with pytest.raises(
        ScoreError, match="'margin' is for classes, got a target that is probabilities"
    ):
        score_batch(build_scorer("margin", plain), plain, (inputs, torch.rand(4, 5)), 4)
    none = ComposerClassifier(torch.nn.Flatten(), num_classes=5)
    with pytest.raises(ScoreError, match="the model has no linear layer"):
        build_scorer("grad_norm", none)
    with pytest.raises(ScoreError, match="computed at the output head, and head is None"):
        build_scorer("grad_norm", build("gpt2"), head=None)
    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    odd = wrapped(transformers.LlamaForCausalLM(config))
    odd.model.lm_head = torch.nn.Sequential(odd.model.lm_head)
    with pytest.raises(ScoreError, match="not torch.nn.Linear"):
        build_scorer("grad_norm", odd)
    with pytest.raises(
        ValueError, match="needs a score that the training forward gives .*, got 'grad_norm'"
    ):
        AtteNT(score="grad_norm", record="always")
    assert AtteNT(score="grad_norm").settings.record == "never"
