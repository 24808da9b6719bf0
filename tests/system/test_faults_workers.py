"""Faults in one rank's processes: a worker killed, stuck, or left alone; a collate function that
raises.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loaders import ids_data
from taught import make_loader, run_epochs

from attent_stream.base.errors import AttentError, CollateError, TeacherError
from attent_stream.teach.board import Board, Posting
from attent_stream.window.layout import LESSON

TESTS = Path(__file__).parents[1] / "support"
from zygote import running, until  # noqa: E402

pytestmark = [pytest.mark.processes, pytest.mark.alone]

SOON = 60  # seconds in which all must have ended; it takes about two


@pytest.fixture
def data(tmp_path):
    return ids_data(tmp_path, 400, window=8, gap=2)


KILLED = (
    r"rank 0 .* lost its data loader: (DataLoader )?worker \(pid.*[0-9]+\) (is killed|exited|ended)"
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("persistent", [False, True])
def test_a_killed_worker_is_a_named_error(data, persistent):
    before = set(multiprocessing.active_children())
    loader = make_loader(data, {"num_workers": 2, "persistent_workers": persistent}, {})
    lessons = iter(loader)
    next(lessons)
    loader.teach(lambda batch: batch["difficulty"])
    pids = [process.pid for process in set(multiprocessing.active_children()) - before]
    assert len(pids) == 2
    try:
        # Torch raises wherever the process is when it hears of it: perhaps here
        os.kill(pids[1], signal.SIGKILL)
        until(lambda: not running(pids[1:]), SOON)
    except RuntimeError as error:
        assert "is killed by signal: Killed" in str(error)
    with pytest.raises(AttentError, match=KILLED):
        for _ in lessons:
            loader.teach(lambda batch: batch["difficulty"])
    lessons.close()
    del lessons, loader
    assert until(lambda: not running(pids), SOON)


@pytest.mark.parametrize(
    ("kind", "does"),
    [
        pytest.param("stock", "work", marks=pytest.mark.slow),
        pytest.param("stock", "stick", marks=pytest.mark.slow),
        ("taught", "work"),
        ("taught", "outlive"),
        ("taught", "stick"),
    ],
)
def test_a_killed_trainer_leaves_nothing_behind(zygote, data, tmp_path, kind, does):
    """No worker, whatever it is at, and no shared memory; and then a stock run starts on the same
    folders.
    """
    data |= {"remote": data["local"], "local": str(tmp_path / "cache")}
    env = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    before = zygote.shared_memory()
    report = tmp_path / "pids.json"
    trainer = zygote.start(
        "faulty:train_until_killed", kind, does, data, str(report), said=tmp_path / "said", env=env
    )
    assert until(report.exists, SOON), trainer.said
    pids = json.loads(report.read_text())
    assert len(pids) == 2 and running(pids) == pids
    during = zygote.shared_memory() - before
    trainer.kill()
    begin = time.monotonic()
    if (kind, does) == ("stock", "stick"):
        # Torch's workers look for their parent between batches only
        assert not until(lambda: not running(pids), 8)
        for pid in running(pids):  # one that was between batches has left
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert until(lambda: not running(pids), SOON)
    # For the docs
    print(
        f"\n{kind}, {does}: {len(during)} names in use, workers gone after "
        f"{time.monotonic() - begin:.1f} s"
    )
    assert until(lambda: zygote.shared_memory() <= before, SOON), zygote.shared_memory() - before
    assert len(during) > 3  # so there was something to leave behind
    if kind == "taught":
        assert not list(tmp_path.glob("pymp-*"))  # multiprocessing's temporary folders
    again = tmp_path / "again.json"
    assert (
        zygote.start("faulty:read_all", data, str(again), said=tmp_path / "again", env=env).wait(
            SOON
        )
        == 0
    )
    assert sorted(json.loads(again.read_text())) == list(range(400))
    assert zygote.shared_memory() <= before


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_were_not_forked_leave_too(zygote, data, tmp_path, context):
    report = tmp_path / "pids.json"
    given = ("taught", "stick", data, str(report), context)
    trainer = zygote.start(
        "faulty:train_until_killed", *given, said=tmp_path / "said", env={"TMPDIR": str(tmp_path)}
    )
    assert until(report.exists, 5 * SOON), trainer.said  # they import everything
    pids = json.loads(report.read_text())
    assert len(pids) == 2 and running(pids) == pids
    trainer.kill()
    assert until(lambda: not running(pids), SOON)


class Refuses:
    """A collate function that cannot take one sample."""

    def __init__(self, sample_id: int) -> None:
        self.sample_id = sample_id

    def __call__(self, samples: list) -> dict:
        if self.sample_id in [sample["id"] for sample in samples]:
            raise ValueError("a picture\nwithout pixels")
        return torch.utils.data.default_collate(samples)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collate_function_that_raises(data, monkeypatch, workers):
    """Told with the samples, where they lie, and the rank."""
    monkeypatch.setenv("RANK", "0")
    loader = make_loader(data, {"num_workers": workers, "collate_fn": Refuses(150)}, {})
    with pytest.raises(CollateError) as caught:
        run_epochs(loader)
    last = str(caught.value).strip().splitlines()[-1]
    assert "collate function 'Refuses' raised ValueError on rank 0 (" in last
    assert last.endswith(": a picture without pixels")
    assert "samples " in last and "150" in last and f"(stream 0, {data['local']}/shard.000" in last


def sticks(samples: list) -> dict:
    signal.pause()


def test_a_stuck_worker_is_told_of(data):
    loader = make_loader(data, {"num_workers": 1, "collate_fn": sticks, "timeout": 1}, {})
    with pytest.raises(
        AttentError,
        match="rank 0 .* lost its data loader: its workers sent nothing for 1 s; .*timeout",
    ):
        next(iter(loader))


def test_a_stuck_trainer_is_told_of():
    board = Board(steps=4, batch_size=2, ahead=0)
    with pytest.raises(
        TeacherError,
        match="a loader worker of rank 0 .* waited 0 s for segment 0 .*raise teacher_timeout",
    ):
        board.wait(board.begin(taught=True), 0, timeout=0.01)


def test_a_late_worker_without_a_step_goes_on():
    """Of three segments it finds the first overwritten: others had all of its steps."""
    board, zeros = Board(steps=4, batch_size=2, ahead=2), np.zeros(2, np.int64)
    generation = board.begin(taught=True)
    for index in range(3):
        ids = np.arange(4).reshape(2, 2) + 10 * index
        board.publish(
            index,
            Posting(
                first_step=2 * index,
                ids=ids,
                roles=zeros + LESSON,
                lesson_notes=(),
                candidate_notes=(),
                scored=False,
                last=index == 2,
                ahead=zeros,
            ),
        )
    late = board.wait(generation, 0, timeout=5)
    assert len(late.ids) == len(late.ahead) == 0 and not late.last
    assert [board.wait(generation, index, timeout=5).ids[0, 0] for index in (1, 2)] == [10, 20]


def test_every_wait_has_a_limit_by_default(data):
    assert make_loader(data, {"num_workers": 1}, {}).timeout == 3600
    assert make_loader(data, {"num_workers": 0}, {}).timeout == 0  # nobody to wait for
