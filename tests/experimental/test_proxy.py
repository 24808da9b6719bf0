"""A proxy scores candidates and is trained on lessons."""

import pytest
import torch
from composer.models import HuggingFaceModel
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader
from proxies import PROXY
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 320, length=LENGTH, vocab=VOCAB)


def test_what_a_proxy_learns_is_part_of_its_cost(corpus):
    """A training step costs three forwards. There are half as many lessons as candidates."""
    costs = []
    for every in (1, 2, 4):
        attent = AtteNT(
            select="hard", keep=0.5, score="loss", fidelity={"proxy": {**PROXY, "every": every}}
        )
        fit(make_loader(corpus, 8), [attent], max_duration="1ba")
        costs.append(attent._scoring.cost)
    scoring = costs[0] / (1 + 3 * 0.5)
    assert costs[1:] == pytest.approx([scoring * (1 + 3 * 0.5 / every) for every in (2, 4)])


def test_a_proxy_scores(corpus, tmp_path):
    """A proxy in a folder, against a function that scores with it."""
    torch.manual_seed(3)
    small = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=1)
    )
    small.save_pretrained(tmp_path / "proxy")
    wrapped = HuggingFaceModel(small, tokenizer=None, use_logits=True, shift_labels=True).eval()

    def asked(model, batch):
        return score_batch(build_scorer("loss", wrapped), wrapped, batch, None)

    settings = {"select": "hard", "keep": 0.5}
    proxy = AtteNT(**settings, score="loss", fidelity={"proxy": {"model": str(tmp_path / "proxy")}})
    got, _, _ = fit(make_loader(corpus, 8), [proxy], max_duration="20ba")
    want, _, _ = fit(make_loader(corpus, 8), [AtteNT(**settings, score=asked)], max_duration="20ba")
    assert (
        got.tokens == want.tokens
        and proxy._scoring.cost < 0.5
        and proxy._scoring.state_dict()["fidelity"] == {}
    )
