"""``fidelity`` in training: what is measured and decided, and that a resumed run goes on as the
unkilled one did.
"""

import copy
import logging

import numpy as np
import pytest
import torch
from composer.models import HuggingFaceModel
from corpora import write_tokens
from fits import LENGTH, VOCAB, Watched, fit, make_loader, make_model
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT
from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.output_head import find_head
from attent_stream.score.agreement import kept_overlap, spearman
from attent_stream.score.auto_fidelity import AutoScorer, Measured, decide, usual_ways
from attent_stream.score.build import build_scorer
from attent_stream.score.cost import ModelCost, model_cost
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, Tokens, parse_fidelity
from attent_stream.score.microbatches import score_batch

PROXY = {
    "model": {
        "name": "hf_causal_lm",
        "architecture": "gpt2",
        "config_overrides": {
            "vocab_size": VOCAB,
            "n_positions": LENGTH,
            "n_embd": 8,
            "n_layer": 1,
            "n_head": 1,
        },
    },
    "train": True,
    "lr": 0.01,
}
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


def test_spearman_is_the_correlation_of_mean_ranks():
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 6, 30).astype(float), generator.normal(size=30)
        ranks = [[(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x] for x in (a, b)]
        assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
        a[3] = np.nan
        assert spearman(a, b) == pytest.approx(spearman(np.delete(a, 3), np.delete(b, 3)))
    assert spearman(b, np.exp(b)) == pytest.approx(1.0) and spearman(b, -b) == pytest.approx(-1.0)
    assert np.isnan(spearman(b, b * 0)) and np.isnan(spearman(b * np.nan, b))


def test_overlap_is_what_both_keep():
    assert kept_overlap(np.array([4.0, 3, 2, 1]), np.array([1.0, 9, 8, 0]), 0.5) == 0.5
    assert kept_overlap(np.arange(8.0), np.arange(8.0) * 2, 0.25) == 1.0
    assert kept_overlap(np.array([4.0, np.nan, 2, 1]), np.array([4.0, 9, 1, 2]), 0.1) == 1.0


def test_cost_counts_what_is_multiplied():
    model = make_model()  # GPT-2: two blocks of width 16
    counted = model_cost(model, find_blocks(model), find_head(model).module, full_precision=True)
    assert counted == ModelCost(
        blocks=2, block=12 * 16 * 16, width=16, head=16 * VOCAB, full_precision=True
    )
    block, head, attention = 12 * 16 * 16, 16 * VOCAB, 16 * 100
    whole = 2 * (block + attention) + head
    assert counted.of(FULL, 100) == 1.0
    assert counted.of(Fidelity(layers=1, tokens=Tokens(share=0.25)), 100) == pytest.approx(
        (block + attention + head / 4) / whole
    )
    first = Fidelity(tokens=Tokens(share=0.25, take="first"))
    assert counted.of(first, 100) == pytest.approx((2 * (block + attention / 4) + head) / 4 / whole)
    assert counted.of(Fidelity(precision="amp_bf16"), 100) == 0.5
    image = ModelCost(blocks=4, block=10, width=0, head=0, full_precision=False)
    assert (
        image.of(Fidelity(resolution=0.5, patches=0.5, layers=2, precision="amp_bf16"), 1)
        == 0.25 * 0.5 * 0.5
    )


def test_the_cheapest_that_agrees_is_taken():
    ways = [Fidelity(layers=n) for n in (1, 2, 3, 4)]
    seen = [(0.7, 0.1), (0.91, 0.2), (0.99, 0.3), (float("nan"), 0.01)]
    measured = [
        Measured(way=way, spearman=rho, overlap=0, cost=cost, time=0)
        for way, (rho, cost) in zip(ways, seen, strict=True)
    ]
    assert (
        decide(measured, 0.9).way == ways[1]
        and decide(measured, 0.95).way == ways[2]
        and decide(measured, 0.995) is None
    )


def test_usual_ways():
    blocks = find_blocks(make_model())
    text = usual_ways(text=True, blocks=blocks, patches=False, images=False)
    assert {way.layers for way in text} == {None, 1} and len(set(text)) == len(text)
    assert all(
        way.tokens is None and way.layers is None
        for way in usual_ways(text=False, blocks=None, patches=False, images=True)
    )


class Fake:
    """Scores that are a column of the batch, and how many samples were asked for."""

    sharded = False

    def __init__(self, column: str) -> None:
        self.column, self.seen = column, 0

    def __call__(self, batch, microbatch, draw=()):
        self.seen += len(batch["labels"])
        return batch[self.column].float()


def ranks_of(world: int, settings: AutoFidelity):
    """The ranks of a job, each with its AutoScorer; ``gather`` of all comes to its end when the
    last one calls it.
    """
    parts: list = []

    def gather(values):
        parts.append(values.numpy())
        return (
            np.stack(parts[-world:])
            if len(parts) % world == 0
            else np.stack([values.numpy()] * world)
        )

    cost = ModelCost(blocks=4, block=10, width=0, head=10, full_precision=False)
    scorers = [Fake("full"), {Fidelity(layers=1): Fake("one"), Fidelity(layers=2): Fake("two")}]
    return AutoScorer(settings, scorers[0], scorers[1], cost, gather=gather, ranks=world), scorers


def batches(rows: int, noise: float, seed: int = 0):
    """Rows of 16 candidates: ``two`` ranks as ``full``, ``one`` as well as ``noise`` lets it."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rows):
        full = torch.randn(16, generator=generator)
        one = full + noise * torch.randn(16, generator=generator)
        yield {
            "labels": torch.zeros(16, 8, dtype=torch.long),
            "full": full,
            "one": one,
            "two": full * 3,
        }


def test_auto_scores_one_window_in_one_way():
    auto, (full, ways) = ranks_of(1, AutoFidelity(every=2, samples=40))
    one, two = ways.values()
    window = list(batches(4, 3.0))
    for batch in window:  # the first window: in full, and 40 of its candidates in every way
        assert torch.equal(auto(batch, 16), batch["full"])
    assert (full.seen, one.seen, two.seen) == (64 + 40, 40, 40)
    found = {m.way: m for m in auto.window_chosen(0.5)}
    joined = {
        name: torch.cat([b[name] for b in window])[:40].numpy() for name in ("full", "one", "two")
    }
    assert found[Fidelity(layers=1)].spearman == pytest.approx(
        spearman(joined["one"], joined["full"]), abs=1e-6
    )
    assert found[Fidelity(layers=1)].overlap == kept_overlap(joined["one"], joined["full"], 0.5)
    assert auto.way == Fidelity(layers=2) and auto.cost == (20 + 10) / (40 + 10)
    for batch in batches(3, 3.0, seed=1):  # the second: by that way alone
        assert torch.equal(auto(batch, 16), batch["two"])
    assert (full.seen, one.seen) == (104, 40) and auto.window_chosen(0.5) == []
    for batch in batches(4, 0.01, seed=2):  # measured anew, still by the same way
        assert torch.equal(auto(batch, 16), batch["two"])
    auto.window_chosen(0.5)
    assert auto.way == Fidelity(layers=1)


def test_auto_goes_on_from_its_state_at_any_batch():
    def play(auto, batches):
        return [auto(batch, 16) if batch else auto.window_chosen(0.5) for batch in batches]

    settings = AutoFidelity(every=2, samples=40)
    run = [
        step
        for window in range(5)
        for step in (*batches(3, 0.1 if window < 3 else 9.0, seed=window), None)
    ]
    whole, _ = ranks_of(1, settings)
    names = []
    for at in range(len(run)):
        resumed, _ = ranks_of(1, settings)
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        assert whole.state_dict().keys() == resumed.state_dict().keys()
        rest = play(resumed, run[at:])
        other, _ = ranks_of(1, settings)
        everything = play(other, run)[at:]
        assert all(
            torch.equal(a, b)
            for a, b in zip(rest, everything, strict=True)
            if isinstance(a, torch.Tensor)
        )
        assert resumed.way == other.way
        play(whole, run[at : at + 1])
        names.append(whole.way.name)
    assert set(names) == {"full", "layers_1", "layers_2"}


def test_auto_with_few_finite_scores_or_other_ways_decides_nothing(caplog):
    auto, _ = ranks_of(1, AutoFidelity())
    auto(next(batches(1, 0.1)), 16)
    with caplog.at_level(logging.WARNING):
        assert auto.window_chosen(0.5) == [] and auto.way == FULL
        state = auto.state_dict() | {"ways": ["full", "layers_3"], "way": "layers_3"}
        auto.load_state_dict(state)
    assert auto.way == FULL and auto.measuring
    assert [
        "measured 16 candidates" in caplog.text,
        "other ways than the checkpoint" in caplog.text,
    ] == [True, True]


def test_all_ranks_decide_alike():
    """Each sees other candidates; one by one they gather, so the second has both's: what both would
    have.
    """
    world = 2
    lots = [list(batches(2, 0.4, seed=rank)) for rank in range(world)]
    gathered = []
    for _ in range(world):
        auto, _ = ranks_of(1, AutoFidelity(samples=64))
        auto._ranks = world
        step = iter(range(2))

        def gather(values, step=step):
            row = next(step)
            names = ("full", "one", "two")
            other = [
                torch.stack([*(lots[rank][row][name] for name in names), torch.full((16,), 8.0)])
                for rank in range(world)
            ]
            return torch.stack(other).numpy()

        auto._gather = gather
        for batch in lots[len(gathered)]:
            auto(batch, 16)
        auto.window_chosen(0.5)
        gathered.append(auto.state_dict())
    assert gathered[0]["way"] == gathered[1]["way"] and torch.equal(
        gathered[0]["slice"], gathered[1]["slice"]
    )


def test_candidates_are_scored_with_less(corpus):
    """Oracle: a callable that builds the model with one block from the learner's weights, for each
    score.
    """

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
    assert algorithm._teacher.payoff.cost == pytest.approx(
        (3072 + 16 * VOCAB) / (2 * 3072 + 16 * VOCAB)
    )


def plain(state):
    """With lists for tensors, whose bits must be the same."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, torch.Tensor) else state


def test_what_a_proxy_learns_is_part_of_its_cost(corpus):
    """A forward and backward, three forwards, of each lesson in so many batches: half as many as
    candidates.
    """
    costs = []
    for every in (1, 2, 4):
        attent = AtteNT(
            select="hard", keep=0.5, score="loss", fidelity={"proxy": {**PROXY, "every": every}}
        )
        fit(make_loader(corpus, 8), [attent], max_duration="1ba")
        costs.append(attent._scoring.cost)
    scoring = costs[0] / (1 + 3 * 0.5)
    assert costs[1:] == pytest.approx([scoring * (1 + 3 * 0.5 / every) for every in (2, 4)])


@pytest.mark.parametrize("fidelity", [AUTO, {"proxy": PROXY}, {"proxy": {**PROXY, "every": 4}}])
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
    end = attent._scoring.state_dict()["fidelity"]
    if "auto" in end:
        logged = memory.data
        assert end["auto"]["way"] != "full" and len(logged["attent/fidelity/cost"]) >= 2
        assert logged["attent/fidelity/layers_1/spearman"][-1][1] <= 1
    else:
        assert end["proxy"]["optimizer"]["state"][0]["step"] == 44 // fidelity["proxy"].get(
            "every", 1
        )
    # Before the slice, within it, behind the decision, in a later measurement
    for at in (2, 6, 11, 27):
        resumed, _, _, again = run(load_path=str(tmp_path / f"ba{at}.pt"))
        assert resumed.tokens == whole.tokens[at:] and resumed.losses == whole.losses[at:], at
        assert plain(again._scoring.state_dict()["fidelity"]) == plain(end)


def test_a_proxy_scores(corpus, tmp_path):
    """One given as a folder, against a callable that asks it."""
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
    with pytest.raises(ValueError, match="full where score is a callable"):
        AtteNT(score=lambda model, batch: None, fidelity="auto")
    with pytest.raises(FidelityError, match="expected full, auto"):
        AtteNT(fidelity="cheap")
    with pytest.raises(ScoreError, match="head must be one of auto, .* or None, got 'fast'"):
        AtteNT(head="fast")
    assert AtteNT(fidelity=parse_fidelity("auto"), head=None).settings.head is None
