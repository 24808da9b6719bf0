"""Scoring with less of a sample or of the model, against smaller models and samples."""

import pytest
import torch
import torchvision
from block_models import LENGTH, VOCAB, T, pair, scores, text
from composer.models import ComposerClassifier, HuggingFaceModel

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model import reference
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity, parse_fidelity
from attent_stream.score.token_positions import strided_positions


@pytest.mark.parametrize(
    ("model", "fidelity", "said"),
    [
        ("gpt2", Fidelity(layers=9), "expected 1 to 4, the model's blocks, received 9"),
        ("gpt2", Fidelity(patches=0.5), "images only, received a language model"),
        ("vit", parse_fidelity({"tokens": {"share": 0.5}}), "expected a language model"),
        ("resnet", Fidelity(layers=1), "list of equal blocks, received ResNet"),
        ("resnet", Fidelity(patches=0.5), "list of equal blocks, received ResNet"),
        ("t5", Fidelity(layers=1), "received an encoder-decoder"),
        ("compiled", Fidelity(layers=1), "not compiled"),
    ],
)
def test_what_a_model_cannot_is_refused_when_the_scorer_is_built(model, fidelity, said):
    if model == "resnet":
        made = ComposerClassifier(torchvision.models.resnet18(num_classes=5), num_classes=5)
    elif model == "t5":
        sizes = {
            "vocab_size": VOCAB,
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
        }
        made = HuggingFaceModel(
            T.T5ForConditionalGeneration(T.T5Config(**sizes)), tokenizer=None, use_logits=True
        )
    else:
        made = pair("gpt2" if model == "compiled" else model, 1)[0]
    if model == "compiled":
        made = torch.compile(made)
    with pytest.raises(FidelityError, match=said):
        build_scorer("loss", made, head=None, fidelity=fidelity)


@pytest.mark.parametrize("head", ["reference", None])
def test_strided_tokens_are_the_mean_over_some(head):
    model, _ = pair("llama", 1)
    batch = text()
    batch["labels"][1, :4] = -100  # an instruction that is not learnt
    labels = torch.cat([batch["labels"][:, 1:], torch.full((5, 1), -100)], 1)
    with torch.no_grad():
        nll, residual_sq = reference.token_scores(model(batch).logits.double(), labels)
    some = strided_positions(labels, 0.3)
    for name, values, finish in (
        ("loss", nll, lambda x: x),
        ("residual", residual_sq, lambda x: x.sqrt()),
    ):
        want = [values[i, row[row >= 0]].mean() for i, row in enumerate(some)]
        got = scores(
            model, batch, parse_fidelity({"tokens": {"share": 0.3}}), head=head, score=name
        )
        torch.testing.assert_close(got, finish(torch.stack(want)).float(), rtol=1e-5, atol=1e-6)


def test_first_tokens_are_a_shorter_sample():
    model, _ = pair("mpt", 1)
    batch = text()
    short = {key: value[:, :6] for key, value in batch.items()}
    torch.testing.assert_close(
        scores(model, batch, parse_fidelity({"tokens": {"share": 0.25, "take": "first"}})),
        scores(model, short),
    )
    pairs = batch | {"attention_mask": torch.ones(5, 1, LENGTH, LENGTH)}
    with pytest.raises(ScoreError, match="cannot cut 'attention_mask' of shape"):
        scores(model, pairs, parse_fidelity({"tokens": {"share": 0.25, "take": "first"}}))


def test_parts_compose():
    whole, small = pair("gpt_neox", 2)
    half = {"share": 0.5, "take": "strided"}
    got = scores(whole, text(), parse_fidelity({"layers": 2, "tokens": half}))
    torch.testing.assert_close(got, scores(small, text(), parse_fidelity({"tokens": half})))
    bf16 = scores(
        whole, text(), parse_fidelity({"layers": 2, "tokens": half, "precision": "amp_bf16"})
    )
    assert not torch.equal(got, bf16)
    torch.testing.assert_close(got, bf16, rtol=5e-2, atol=5e-2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(scores(small, text(), parse_fidelity({"tokens": half})), bf16)
