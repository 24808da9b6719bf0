"""A run that is killed again and again trains on what the run that never was does, to the same
losses, bit for bit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from composer.core import Event
from corpora import write_tokens
from fits import LENGTH, VOCAB

pytestmark = pytest.mark.processes

STEPS = (
    Event.BEFORE_DATALOADER,
    Event.AFTER_DATALOADER,
    Event.AFTER_FORWARD,
    Event.BATCH_END,
    Event.BATCH_CHECKPOINT,
)
SETTINGS = {
    # Scored windows; an anneal; learning rates over epochs, whose length must be told alike after a
    # resume.
    "scored": (
        {"keep": 0.5, "select": "soft", "warmup": "6ba", "anneal": "0.2dur"},
        {"max_duration": "3ep", "save_interval": "3ba"},
    ),
    # The ledger, filled by training forwards; sample counts that are not known before; checkpoints
    # at epochs only.
    "ledger": (
        {
            "select": "hard",
            "keep": {"schedule": "linear", "from": 0.3, "to": 0.9},
            "score": "loss",
            "interval": "9ep",
            "remember": "always",
        },
        {"max_duration": f"{45 * 4 * LENGTH}tok", "save_interval": "1ep"},
    ),
}


def run(
    tmp_path: Path, name: str, lives: list, attent: dict, trainer: dict, order: str
) -> list[dict]:
    """The steps of all lives."""
    spec = {
        "attent": attent,
        "run": trainer,
        "order": order,
        "lives": lives,
        "out": str(tmp_path / f"{name}.jsonl"),
    }
    spec |= {
        "folder": str(tmp_path / "tokens"),
        "held_out": str(tmp_path / "held_out"),
        "saved": str(tmp_path / name),
    }
    program = str(Path(__file__).parents[1] / "support" / "killed.py")
    done = subprocess.run(
        [sys.executable, program, json.dumps(spec)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in Path(spec["out"]).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "order"), [("scored", "streaming"), ("scored", "lazy"), ("ledger", "streaming")]
)
def test_killed_and_resumed(tmp_path, name, order):
    write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    write_tokens(tmp_path / "held_out", 8, length=LENGTH, vocab=VOCAB, seed=1)
    whole = run(tmp_path, "whole", [None], *SETTINGS[name], order)
    assert [step["batch"] for step in whole] == list(range(len(whole)))
    # In the first window, at borders of windows and of epochs, in the anneal, twice at the same
    # place, at every kind of event.
    places = [2, 7, 7, 9, 15, 16, 22, len(whole) - 1]
    lives = [[batch, STEPS[i % len(STEPS)].value] for i, batch in enumerate(places)]
    killed = run(tmp_path, "killed", [*lives, None], *SETTINGS[name], order)
    for step in killed:
        assert step == whole[step["batch"]]
    assert {step["batch"] for step in killed} == set(range(len(whole)))
    assert len(killed) > len(whole)  # what lay behind the last checkpoint was trained on again
