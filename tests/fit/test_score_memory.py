"""The ledger over fits. Oracle: what was recorded."""

from dataclasses import replace

import numpy as np
import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, make_loader

from attent_stream.fit.run import Facts, Run
from attent_stream.fit.score_memory import ScoreMemory
from attent_stream.fit.settings import parse_settings
from attent_stream.memory.ledger import GroupLedger, SampleLedger

IDS, LOSSES = np.arange(0, 96, 3), np.linspace(1.0, 5.0, 32)


@pytest.fixture
def dataset(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)
    return make_loader(folder).dataset


def run_of(**given) -> Run:
    return parse_settings(**given).of_run(Facts(text=True))


def filled(dataset, run: Run) -> ScoreMemory:
    memory = ScoreMemory("loss")
    memory.open(dataset, run).record(IDS, LOSSES, 0.0)
    return memory


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, SampleLedger),
        ({"remember": {"per": "shard"}}, GroupLedger),
        ({"select": "hard", "interval": "2ep"}, SampleLedger),  # scores outlast an epoch
        ({"select": "hard"}, type(None)),
        ({"remember": "never"}, type(None)),
        ({"remember": "always", "select": "random"}, type(None)),
    ],
)
def test_there_is_a_ledger_where_scores_can_be_used_again(dataset, given, kind):
    memory = ScoreMemory("loss")
    assert type(memory.open(dataset, run_of(**given))) is kind
    assert memory.state_dict()["score"] == run_of(**given).score
    assert (memory.state_dict()["ledger"] is None) == (kind is type(None))


def test_the_next_fit_goes_on_with_it_and_another_run_does_not(dataset):
    run = run_of()
    memory = filled(dataset, run)
    expected = memory.ledger.recall(np.arange(96))
    assert np.isfinite(expected[IDS]).all()
    again = memory.open(dataset, run)
    np.testing.assert_array_equal(again.recall(np.arange(96)), expected)
    memory.forget()
    assert memory.ledger is None
    assert not np.isfinite(memory.open(dataset, run).recall(IDS)).any()


def test_a_checkpoint_is_gone_on_from(dataset):
    run = run_of()
    memory = filled(dataset, run)
    other = ScoreMemory("loss")
    other.load_state_dict(memory.state_dict())
    assert other.ledger is None  # until a fit starts
    found = other.open(dataset, run).recall(np.arange(96))
    np.testing.assert_array_equal(found, memory.ledger.recall(np.arange(96)))


def test_a_checkpoint_that_names_no_score_has_the_one_that_was_asked_for(dataset):
    state = filled(dataset, run_of()).state_dict() | {"score": None}
    for asked, fits in (("loss", True), ("residual", False)):
        memory = ScoreMemory(asked)
        memory.load_state_dict(state)
        if fits:
            assert np.isfinite(memory.open(dataset, run_of()).recall(IDS)).all()
        else:
            with pytest.raises(ValueError, match="a ledger of score 'loss', got 'residual'"):
                memory.open(dataset, run_of())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"score": "residual"}, "a ledger of score 'residual', got 'loss'"),
        ({"remember": {"per": "stream"}}, "a ledger per stream, got one per sample"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_a_way_out(dataset, given, message):
    memory = ScoreMemory("loss")
    memory.load_state_dict(filled(dataset, run_of()).state_dict())
    with pytest.raises(ValueError, match=message) as told:
        memory.open(dataset, run_of(**given))
    assert "load_ignore_keys: ['state/algorithms*']" in str(told.value)


def test_another_data_set_in_the_next_fit_is_refused(dataset, tmp_path):
    memory = filled(dataset, run_of())
    other = write_tokens(tmp_path / "other", 64, length=LENGTH, vocab=VOCAB)
    with pytest.raises(ValueError, match="96 samples, got 64"):
        memory.open(make_loader(other).dataset, run_of())


def test_a_function_is_told_as_a_callable(dataset):
    run = replace(run_of(select="hard", interval="2ep"), score=lambda model, batch: None)
    memory = ScoreMemory(run.score)
    memory.open(dataset, run)
    assert memory.state_dict()["score"] == "a callable"
