"""``select: predicted`` teaches where it pays. Oracles: known spreads of scores, counts of what was
read, a run never stopped.
"""

import pytest
import torch
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_model
from fits import make_loader as make_lm_loader
from loaders import ids_data
from taught import make_loader, make_teacher, run_epochs

from attent_stream import AtteNT, TeachingDataLoader
from attent_stream.experimental.predicted import PredictedTeacher

ROWS = 80


def heavy(batch) -> torch.Tensor:
    """Few samples have most of the gradient."""
    return (batch["id"] % 10 == 3).float() * 20 + 0.1


def even(batch) -> torch.Tensor:
    return 1 + 0.01 * (batch["id"] % 7)


@pytest.fixture
def data(tmp_path):
    return ids_data(tmp_path, 4 * ROWS, window=8, gap=2)


def kinds(log) -> list[str]:
    return [by for _, _, by, _ in log["choices"]]


def loader_of(data: dict, *, cost: float = 1.0, **teacher) -> TeachingDataLoader:
    """A loader with a teacher that predicts."""
    usual = make_teacher(select="predicted", keep=0.5, **teacher)
    made = PredictedTeacher(usual.settings, clock=usual.clock, ledger=usual.ledger)
    made.scoring_costs(cost)
    loader = make_loader(data, {}, {})
    loader.attach(made)
    return loader


@pytest.mark.parametrize(("score", "taught"), [(heavy, True), (even, False)])
def test_one_pass(data, score, taught):
    log = run_epochs(loader_of(data, cost=0.1), 1, score)
    assert kinds(log)[:2] == ["all", "scored"]
    assert len(log["choices"][1][3]) == 8  # a probe: it is kept whole
    later = kinds(log)[2:]
    assert later == ["scored" if taught else "all"] * len(later)
    assert len(log["lessons"]) == (2 * 8 + 8 * 4 if taught else ROWS)
    dear = run_epochs(loader_of(data), 1, score)
    # Of ten windows even one probe is too dear
    assert set(kinds(dear)) == {"all"} and not dear["scored"]


@pytest.mark.parametrize(("score", "taught"), [(heavy, True), (even, False)])
def test_seen_again(data, score, taught):
    """Remembered scores are free; nothing is scored."""
    loader = loader_of(data, interval="9ep", ledger=4 * ROWS)
    ids = torch.arange(4 * ROWS)
    loader.teacher.remember(ids.numpy(), score({"id": ids}).numpy(), 0.0)
    log = run_epochs(loader, 1, score)
    assert set(kinds(log)) == {"remembered" if taught else "all"} and not log["scored"]
    assert len(log["lessons"]) == (ROWS // 2 if taught else ROWS)


@pytest.mark.parametrize(("score", "promising"), [(heavy, True), (even, False)])
def test_what_a_part_of_the_scores_promises(data, score, promising):
    """Too few are remembered to teach by them (seven eighths), enough to see their spread."""
    loader = loader_of(data, interval="9ep", ledger=4 * ROWS)
    ids = torch.arange(4 * ROWS)
    ids = ids[ids % 8 > 0]
    loader.teacher.remember(ids.numpy(), score({"id": ids}).numpy(), 0.0)
    batches = iter(loader)
    next(batches)
    first, *_ = loader.teach(even)
    batches.close()
    assert first.decision.by == "all" and first.kept.all()
    assert (first.metrics["gain"] > 1.5) == promising
    assert loader.teacher.payoff.gain == pytest.approx(first.metrics["gain"])


def test_its_length_is_not_told_too_short(data):
    loader = loader_of(data)
    assert loader.forecast() == ROWS


def test_a_taught_run_is_resumed_bit_for_bit(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 300, length=LENGTH, vocab=VOCAB)

    def score(model, batch):
        # A quarter of the samples has nearly all of it
        return (batch["input_ids"][:, 0] % 4 == 3).float() * 20 + 0.1

    def run(seed, **kwargs):
        algorithm = AtteNT(select="predicted", keep=0.5, score=score)
        loader = make_lm_loader(folder, 2)  # a probe is worth it in many windows
        watch, memory, _ = fit(
            loader, [algorithm], make_model(0.1, seed), max_duration="1ep", seed=seed, **kwargs
        )
        return watch, memory, algorithm

    saving = {"save_folder": str(tmp_path), "save_interval": "1ba", "save_filename": "ba{batch}.pt"}
    whole, memory, algorithm = run(1, **saving)
    assert memory.data["attent/candidates"][-1][1] > 0 and algorithm.state_dict()["gain"] > 1
    for at in (3, 33):
        rest, _, again = run(8, load_path=str(tmp_path / f"ba{at}.pt"))
        assert rest.tokens == whole.tokens[at:] and rest.losses == whole.losses[at:]
        assert again.state_dict()["gain"] == algorithm.state_dict()["gain"]
