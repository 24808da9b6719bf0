"""A proxy that learns from lessons. Oracles: AdamW on a copy of the model, the learner's random
numbers.
"""

import copy

import pytest
import torch
from composer.models import HuggingFaceModel
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader, make_model
from proxies import PROXY
from token_losses import text
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT
from attent_stream.base.errors import FidelityError
from attent_stream.experimental.proxy import Proxy, ProxySettings, other_model
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

CPU = torch.device("cpu")


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def proxy(**settings) -> Proxy:
    given = {"model": make_model(seed=5), "train": True, "lr": 0.01} | settings
    return ProxySettings(**given).build(make_model(), CPU, seed=1)


def test_it_learns_as_adamw_does_with_clipped_gradients():
    made = proxy(weight_decay=0.1)
    expected = copy.deepcopy(made.model)
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        made.learn(text())
        optimizer.zero_grad()
        expected.loss(expected(text()), text()).backward()
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(weights(made.model), weights(expected), rtol=0, atol=0)
    assert not made.model.training
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_it_learns_from_one_batch_in_so_many():
    made = proxy(every=3)
    assert [batch for batch in range(8) if made.learns_from(batch)] == [0, 3, 6]
    assert not proxy(train=False).learns_from(0)


def test_a_resumed_proxy_goes_on_alike():
    whole, again = proxy(), proxy()
    whole.learn(text())
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for one in (whole, again):
        one.learn(text())
    assert torch.equal(weights(whole.model), weights(again.model))
    assert proxy(train=False).state_dict() == {}
    with pytest.raises(FidelityError, match="expected the proxy of the checkpoint, received anoth"):
        again.load_state_dict({"model": {}, "optimizer": {}})


def test_building_one_leaves_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    section = {"name": "hf_causal_lm", "architecture": "gpt2"}
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 61, "n_positions": 24}
    made = [
        other_model(section | {"config_overrides": sizes}, make_model(), CPU, seed=seed, key="k")
        for seed in (1, 1, 2)
    ]
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(made[0]), weights(made[1]))
    assert not torch.equal(weights(made[0]), weights(made[2]))
    given = make_model(seed=5)
    assert other_model(given, make_model(), CPU, seed=1, key="k") is given


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("/nowhere", "k.model: expected a folder with a Hugging Face model, received '/nowhere'"),
        ({"name": "hf_causal_ml"}, "k: expected a model that can be built, received one that can"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_sentence(model, says):
    with pytest.raises(FidelityError, match=says):
        other_model(model, make_model(), CPU, seed=1, key="k")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": 3}, "fidelity.proxy.model: expected a folder, .*, received int"),
        ({"model": {"name": "x"}, "train": False}, "proxy.train: expected true for a model that"),
        ({"train": 1}, "fidelity.proxy.train: expected true or false, received 1"),
        ({"every": 0}, "fidelity.proxy.every: expected an integer of at least 1, received 0"),
        ({"lr": 0}, "fidelity.proxy.lr: expected a number above 0, received 0"),
        ({"weight_decay": -1}, "fidelity.proxy.weight_decay: expected a number"),
    ],
)
def test_bad_settings_are_told_in_one_sentence(settings, says):
    with pytest.raises(FidelityError, match=says):
        proxy(**settings)


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
        costs.append(attent.fit.scorer.cost)
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
        and proxy.fit.scorer.cost < 0.5
        and proxy.fit.scorer.state_dict()["fidelity"] == {}
    )
