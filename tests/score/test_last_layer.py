"""Gradient norms of a classifier's last layer, against autograd."""

import numpy as np
import pytest
import torch
import transformers
from composer.models import ComposerClassifier
from head_models import build, wrapped
from small_models import Logits, vit
from torch.nn import functional as F

from attent_stream import AtteNT
from attent_stream.base.errors import ScoreError
from attent_stream.fit.run import Facts
from attent_stream.score.build import build_scorer
from attent_stream.score.grad_norm import classifier_grad_norms
from attent_stream.score.microbatches import score_batch


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
        ValueError, match="needs a score of the training forward's own outputs, got grad_norm"
    ):
        AtteNT(score="grad_norm", remember="always")
    assert AtteNT(score="grad_norm").settings.of_run(Facts(text=True)).remember.when == "never"
