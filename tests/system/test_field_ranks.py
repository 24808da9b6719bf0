"""What nobody asked for and one rank or all cannot do: every rank goes on, and trains alike."""

from pathlib import Path

import pytest
from corpora import write_tokens
from ranks_fit import LENGTH, VOCAB
from ranks_jobs import run_ranks, settings

pytestmark = pytest.mark.processes

SAME = ("rows", "losses", "grads", "model")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("field")
    data = settings(write_tokens(folder / "data", 700, length=LENGTH, vocab=VOCAB), 2) | {
        "window": 2
    }
    jobs = {
        f"{model} {name}": {
            "data": data,
            "attent": attent,
            "model": model,
            "duration": duration,
            "microbatch": 2,
        }
        for model, duration in (("loss_only", "2ep"), ("fails", "1ep"))
        for name, attent in (("plain", None), ("default", {}))
    }
    refused = {"data": data, "model": "loss_only", "attent": {"select": "hard", "keep": 0.5}}
    return run_ranks(folder, jobs | {"refused": refused})


@pytest.mark.parametrize("model", ["loss_only", "fails"])
def test_what_cannot_be_scored_is_trained_plainly_on_all_ranks(logs, model):
    for log in logs:
        for part in SAME:
            assert log[f"{model} default"][part] == log[f"{model} plain"][part], part
    assert logs[0][f"{model} default"]["losses"] == logs[1][f"{model} default"]["losses"]


def test_nothing_is_forwarded_that_nobody_asked_for(logs):
    assert all(log["fails default"]["forwards"][-1] == 0 for log in logs)


def test_what_was_asked_for_is_refused_on_all_ranks(logs):
    for log in logs:
        assert "LossOnly cannot be scored by forwards of its own" in log["refused"]["error"]
