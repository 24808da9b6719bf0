"""Windows of several panels: any number of ranks and any resume give one rank's lessons."""

import pytest
from corpora import write_ids
from loaders import ids_data
from taught import make_loader, run_epochs, state_after_each_lesson
from taught_ranks import run_ranks

from attent_stream.arrange import balance
from attent_stream.teach.chooser import LARGE

PIECES = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "30ba", "stages": 2}
PANEL = 15  # lanes of four slots are cut
TEACHERS = [
    {"keep": 1.0, "select": "random", "balance": "starts", "pieces": PIECES},
    {"keep": 0.5, "select": "hard", "balance": "ids"},
]


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(("world", "large"), [(2, LARGE), (4, LARGE), (4, 1)])
def test_ranks_that_share_panels_train_on_the_lessons_of_one(
    tmp_path, monkeypatch, teacher, world, large
):
    """From ``large`` units on, a window is chosen in a thread."""
    monkeypatch.setattr(balance, "PANEL", PANEL)
    data = {
        "local": write_ids(tmp_path / "data", 16 * 20),
        "shuffle": True,
        "num_canonical_nodes": 4,
        "window": 5,
        "gap": 1,
        "partition_algo": "relaxed",
    }
    alone = run_epochs(make_loader(data | {"batch_size": 16}, {}, teacher))
    spec = {
        "data": data | {"batch_size": 16 // world},
        "loader": {"num_workers": 1},
        "teacher": teacher,
        "epochs": 1,
        "panel": PANEL,
        "large": large,
    }
    logs = run_ranks(tmp_path, world, spec)
    assert all(log["choices"] == alone["choices"] for log in logs)
    for step, batch in enumerate(alone["lessons"]):
        assert sorted(i for log in logs for i in log["lessons"][step]) == sorted(batch)
    monkeypatch.setattr(balance, "PANEL", 1 << 16)
    assert run_epochs(make_loader(data | {"batch_size": 16}, {}, teacher)) != alone


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_resume_at_every_lesson(tmp_path, monkeypatch, teacher, workers):
    monkeypatch.setattr(balance, "PANEL", 6)
    data = ids_data(tmp_path, 131, shuffle=True, num_canonical_nodes=2, window=5, gap=1)
    whole, states = state_after_each_lesson(make_loader(data, {}, teacher))
    scored = run_epochs(make_loader(data, {}, teacher))["scored"]
    loader = make_loader(data, {"num_workers": workers}, teacher)
    for lesson in range(0, len(whole), 5 if workers else 1):
        loader.dataset.load_state_dict(states[lesson])
        loader.teacher.clock.batches = lesson + 1
        rest = run_epochs(loader)
        assert rest["lessons"] == whole[lesson + 1 :], lesson
        # What was read again was not scored again
        assert rest["scored"] == scored[len(scored) - len(rest["scored"]) :]
