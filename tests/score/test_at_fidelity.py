"""``fidelity`` in training: a resumed run goes on as the unkilled one did."""

import pytest
import torch
from composer.models import HuggingFaceModel
from corpora import write_tokens
from fits import LENGTH, VOCAB, Watched, fit, make_loader, make_model
from proxies import PROXY
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT
from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

AUTO = {
    "auto": {
        "agreement": 0.5,
        "every": 3,
        "samples": 34,
        "ways": [{"layers": 1}, {"tokens": {"share": 0.5}}],
    }
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 320, length=LENGTH, vocab=VOCAB)


def test_candidates_are_scored_with_less(corpus):
    """The oracle is a function that builds a model of one block from the learner's weights."""

    def one_block(model, batch):
        small = GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCAB, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2)
        )
        small.load_state_dict(
            {
                k: v
                for k, v in model.model.state_dict().items()
                if not k.startswith("transformer.h.1.")
            }
        )
        wrapped = HuggingFaceModel(small, tokenizer=None, use_logits=True, shift_labels=True).eval()
        return score_batch(build_scorer("residual", wrapped, head=None), wrapped, batch, None)

    settings = {"select": "hard", "keep": 0.5}
    kwargs = {"max_duration": "30ba", "seed": 1}
    algorithm = Watched(**settings, fidelity={"layers": 1})
    cheap, _, _ = fit(make_loader(corpus, 8), [algorithm], make_model(0.1), **kwargs)
    want, _, _ = fit(
        make_loader(corpus, 8), [AtteNT(**settings, score=one_block)], make_model(0.1), **kwargs
    )
    full, _, _ = fit(make_loader(corpus, 8), [AtteNT(**settings)], make_model(0.1), **kwargs)
    assert algorithm.taught and cheap.tokens == want.tokens and cheap.losses == want.losses
    assert cheap.tokens != full.tokens
    assert algorithm.fit.scorer.cost == pytest.approx((3072 + 16 * VOCAB) / (2 * 3072 + 16 * VOCAB))


def plain(state):
    """Turn tensors into lists, to compare them bit by bit."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize(
    "fidelity",
    [
        AUTO,
        {"proxy": PROXY},
        pytest.param({"proxy": {**PROXY, "every": 4}}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_does_as_the_unkilled_one(corpus, tmp_path, fidelity):
    def run(**kwargs):
        attent = AtteNT(select="hard", keep=0.5, fidelity=fidelity)
        made = fit(
            make_loader(corpus, 10),
            [attent],
            make_model(0.1),
            max_duration="44ba",
            seed=1,
            **kwargs,
        )
        return *made, attent

    saving = {"save_folder": str(tmp_path), "save_interval": "1ba", "save_filename": "ba{batch}.pt"}
    whole, memory, _, attent = run(**saving)
    random, _, _ = fit(make_loader(corpus, 10), [], make_model(0.1), max_duration="44ba", seed=1)
    assert whole.tokens != random.tokens
    end = attent.fit.scorer.state_dict()["fidelity"]
    if "auto" in end:
        logged = memory.data
        assert end["auto"]["way"] != "full" and len(logged["attent/fidelity/cost"]) >= 2
        assert logged["attent/fidelity/layers_1/spearman"][-1][1] <= 1
    else:
        assert end["proxy"]["optimizer"]["state"][0]["step"] == 44 // fidelity["proxy"].get(
            "every", 1
        )
    # Before the slice, within it, after the decision, in a later measurement
    for at in (2, 6, 11, 27):
        resumed, _, _, again = run(load_path=str(tmp_path / f"ba{at}.pt"))
        assert resumed.tokens == whole.tokens[at:] and resumed.losses == whole.losses[at:], at
        assert plain(again.fit.scorer.state_dict()["fidelity"]) == plain(end)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fidelity": {"layers": 3}}, "expected 1 to 2, the model's blocks, received 3"),
        ({"fidelity": {"patches": 0.5}}, "images only"),
        (
            {"fidelity": {"proxy": {"model": "nowhere"}}},
            "expected a folder with a Hugging Face model, received 'nowhere'",
        ),
        ({"fidelity": {"auto": {"ways": [{"layers": 7}]}}}, "expected 1 to 2"),
        (
            {
                "fidelity": {
                    "proxy": {**PROXY, "model": {"name": "hf_causal_lm", "architecture": "gpt22"}}
                }
            },
            "gpt22",
        ),
    ],
)
def test_refused_before_training_starts(corpus, settings, said):
    with pytest.raises(FidelityError, match=said):
        fit(make_loader(corpus), [AtteNT(select="hard", **settings)], max_duration="1ba")


def test_refused_at_construction():
    with pytest.raises(ValueError, match="scoring.fidelity must be full for a score of your own"):
        AtteNT(score=lambda model, batch: None, scoring="auto")
    with pytest.raises(FidelityError, match="expected full, auto"):
        AtteNT(scoring="cheap")
    with pytest.raises(ScoreError, match="head must be one of auto, .* or None, got 'fast'"):
        AtteNT(scoring={"head": "fast"})
    assert AtteNT(scoring={"fidelity": "auto", "head": None}).settings.scoring.head is None
