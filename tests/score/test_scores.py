"""Scores of language models, against each sample's own logits and autograd in float64."""

import numpy as np
import pytest
import torch
from head_models import MODELS, build, text
from torch.nn import functional as F

from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

FAMILIES = ("llama", "gpt2", "bert")


def whole_model(name: str, score: str) -> np.ndarray:
    """Compute scores from the model's own logits, loss and autograd, sample by sample."""
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
