"""``select: auto``: teaches where it pays. Oracles: the gains of known spreads, counts of what was
read.
"""

import numpy as np
import pytest
import torch
from composer.models import ComposerClassifier
from corpora import write_ids, write_tokens
from fits import LENGTH, VOCAB, fit
from fits import make_loader as make_lm_loader
from taught import make_loader, run_epochs

from attent_stream import AtteNT
from attent_stream.experimental.payoff import MARGIN, Payoff, best_design
from attent_stream.window.inclusion import INCLUSIONS, moment_gain

ROWS = 80


def heavy(batch) -> torch.Tensor:
    """Few samples have most of the gradient."""
    return (batch["id"] % 10 == 3).float() * 20 + 0.1


def even(batch) -> torch.Tensor:
    return 1 + 0.01 * (batch["id"] % 7)


@pytest.fixture
def data(tmp_path):
    return {
        "local": write_ids(tmp_path / "data", 4 * ROWS),
        "batch_size": 4,
        "num_canonical_nodes": 1,
        "window": 8,
        "gap": 2,
    }


def kinds(log) -> list[str]:
    return [by for _, _, by, _ in log["choices"]]


def test_the_best_design_has_the_largest_gain():
    rng = np.random.default_rng(2)
    for spread in (0.01, 0.5, 2.0):
        scores = np.exp(spread * rng.normal(size=(8, 16)))
        design = best_design(scores, 64)
        gains = {
            name: moment_gain(scores.reshape(-1), inclusion(scores.reshape(-1), 64, 1.0))
            for name, inclusion in INCLUSIONS.items()
        }
        assert design.gain == max(gains.values()) == gains[design.name]
    assert best_design(scores, 64).gain > 1.5
    # Of equals: as good as plain, not better
    assert best_design(np.ones((8, 16)), 64).gain == pytest.approx(1.0)


def test_what_pays():
    payoff = Payoff(cost=0.3)
    assert payoff.pays(1.0 + MARGIN + 0.001, 0.5, scored=False) and not payoff.pays(
        1.0 + MARGIN, 0.5, scored=False
    )
    assert payoff.pays(1.2 + MARGIN + 0.001, 0.5, scored=True) and not payoff.pays(
        1.2 + MARGIN - 0.001, 0.5, scored=True
    )
    assert not payoff.scores(0.5)  # nothing is known
    payoff.see(3.0)
    assert payoff.scores(0.5)
    for _ in range(10):
        payoff.see(1.0)
    assert not payoff.scores(0.5)


def test_probes_cost_a_hundredth_at_most():
    for cost in (0.05, 1.0, 3.0):
        for windows in (3, 5, 20, 50, 200, 1000):
            probed = sum(Payoff(cost).probes(index, index / windows) for index in range(windows))
            assert probed * cost / 3 <= 0.01 * windows + 1e-9
    assert Payoff(0.05).probes(1, 1 / 5)
    assert [i for i in range(200) if Payoff(1.0).probes(i, i / 200)] == [1, 65, 129, 193]


@pytest.mark.parametrize(("score", "taught"), [(heavy, True), (even, False)])
def test_one_pass(data, score, taught):
    log = run_epochs(make_loader(data, {}, {"select": "auto", "keep": 0.5, "cost": 0.1}), 1, score)
    assert kinds(log)[:2] == ["all", "scored"]
    assert len(log["choices"][1][3]) == 8  # a probe: it is kept whole
    later = kinds(log)[2:]
    assert later == ["scored" if taught else "all"] * len(later)
    assert len(log["lessons"]) == (2 * 8 + 8 * 4 if taught else ROWS)
    dear = run_epochs(make_loader(data, {}, {"select": "auto", "keep": 0.5, "cost": 1.0}), 1, score)
    # Of ten windows even one probe is too dear
    assert set(kinds(dear)) == {"all"} and not dear["scored"]


@pytest.mark.parametrize(("score", "taught"), [(heavy, True), (even, False)])
def test_seen_again(data, score, taught):
    """Remembered scores are free; nothing is scored."""
    loader = make_loader(
        data, {}, {"select": "auto", "keep": 0.5, "interval": "9ep", "ledger": 4 * ROWS}
    )
    ids = torch.arange(4 * ROWS)
    loader.teacher.remember(ids.numpy(), score({"id": ids}).numpy(), 0.0)
    log = run_epochs(loader, 1, score)
    assert set(kinds(log)) == {"remembered" if taught else "all"} and not log["scored"]
    assert len(log["lessons"]) == (ROWS // 2 if taught else ROWS)


@pytest.mark.parametrize(("score", "promising"), [(heavy, True), (even, False)])
def test_what_a_part_of_the_scores_promises(data, score, promising):
    """Too few are remembered to teach by them (seven eighths), enough to see their spread."""
    loader = make_loader(
        data,
        {},
        {"select": "auto", "keep": 0.5, "interval": "9ep", "ledger": 4 * ROWS, "cost": 1.0},
    )
    ids = torch.arange(4 * ROWS)
    ids = ids[ids % 8 > 0]
    assert not loader.teacher.promising
    loader.teacher.remember(ids.numpy(), score({"id": ids}).numpy(), 0.0)
    log = run_epochs(loader, 1, even)
    assert kinds(log)[0] == "all" and loader.teacher.promising == promising


def test_its_length_is_not_told_too_short(data):
    loader = make_loader(data, {}, {"select": "auto", "keep": 0.5})
    assert loader.forecast() == ROWS


def test_the_default_in_a_single_pass(tmp_path):
    """Nothing is remembered or scored in a short one. It trains as with all of it written out, and
    with that off as plain streaming does.
    """
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    plain, _, _ = fit(make_lm_loader(folder), [], max_duration="1ep", seed=1)
    pieces = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
    runs = []
    for asked in (
        {},
        {"balance": "tokens", "seq_len": pieces},
        {"balance": "none", "seq_len": 1.0},
    ):
        algorithm = AtteNT(**asked)
        assert algorithm.settings.teacher.select == "auto" and algorithm.settings.record == "always"
        runs.append(fit(make_lm_loader(folder), [algorithm], max_duration="1ep", seed=1)[0])
        assert algorithm.state_dict()["ledger"] is None
    assert runs[0].losses == runs[1].losses != plain.losses
    assert runs[2].losses == plain.losses
    assert (
        AtteNT(score=lambda model, batch: batch["input_ids"][:, 0].float()).settings.record
        == "never"
    )


def test_the_default_where_text_is_seen_again(tmp_path):
    """As with all of it written out: soft by remembered losses. What is asked for stays."""
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    # It scores nothing in the first epoch
    written = {"interval": "1dur", "record": "always", "select": "soft", "warmup": "1ep"}
    raw = {"ledger": {"detrend": False}}
    for asked in ({}, {"keep": 0.7, "score": "residual", "temperature": 2.0, "anneal": "9ba"}, raw):
        default = {"keep": 0.5, "score": "loss", "temperature": 0.5, "ledger": {"detrend": True}}
        got, memory, _ = fit(
            make_lm_loader(folder), [algorithm := AtteNT(**asked)], max_duration="60ba", seed=1
        )
        want, _, _ = fit(
            make_lm_loader(folder),
            [AtteNT(**written, **{**default, **asked})],
            max_duration="60ba",
            seed=1,
        )
        assert got.tokens == want.tokens and got.losses == want.losses
        kept = [keep for _, keep in memory.data["attent/keep"]]
        assert min(kept) == pytest.approx(asked.get("keep", 0.5), abs=0.1) and max(kept) == 1
        assert np.isfinite(algorithm._memory.ledger.recall(np.arange(96))).mean() > 0.9


def test_the_default_of_a_classifier(tmp_path):
    """A batch in eight is remembered, whose spread promises nothing, and it trains as plain
    streaming does.
    """

    def collate(samples):
        tokens = torch.from_numpy(
            np.stack([sample["tokens"] for sample in samples]).astype(np.float32)
        )
        return tokens / VOCAB - 0.5, (tokens[:, 0] % 5).long()

    def run(algorithms):
        torch.manual_seed(0)
        model = ComposerClassifier(torch.nn.Linear(LENGTH, 5), num_classes=5)
        return fit(
            make_lm_loader(folder, collate_fn=collate),
            algorithms,
            model,
            max_duration="2ep",
            seed=1,
        )[0].losses

    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    assert run([algorithm := AtteNT()]) == run([])
    assert 0.1 < np.isfinite(algorithm._memory.ledger.recall(np.arange(96))).mean() < 0.5
