"""Faults among several ranks, as real processes: one killed, stopped, or raising; all killed, and
the run gone on with by another number of them.
"""

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from corpora import write_ids
from taught import make_loader, run_epochs

TESTS = Path(__file__).parents[1] / "support"
from ports import free_port  # noqa: E402
from zygote import Child, Zygote, until  # noqa: E402

pytestmark = [pytest.mark.processes, pytest.mark.alone]

SOON = 120
GLOBAL_BATCH = 16


@pytest.fixture
def spec(tmp_path):
    data = {
        "local": write_ids(tmp_path / "data", GLOBAL_BATCH * 30),
        "shuffle": True,
        "num_canonical_nodes": 4,
        "window": 5,
    }
    teacher = {"keep": 0.5, "select": "soft"}
    made = {
        "data": data | {"gap": 1},
        "loader": {"num_workers": 1},
        "teacher": teacher,
        "epochs": 2,
        "timeout": 60,
    }
    # A short path: for sockets
    with tempfile.TemporaryDirectory(prefix="ranks", ignore_cleanup_errors=True) as temporary:
        yield made | {"temporary": temporary}


def start(zygote: Zygote, folder: Path, world: int, spec: dict) -> tuple[list[Child], list[Path]]:
    """Ranks of one node, and the file in which each logs its lessons."""
    port = str(free_port())
    folder.mkdir()
    common = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    common |= {"TMPDIR": spec["temporary"], "OMP_NUM_THREADS": "1"}
    spec = spec | {"data": spec["data"] | {"batch_size": GLOBAL_BATCH // world}}
    outs = [folder / f"rank{rank}.jsonl" for rank in range(world)]
    ranks = [
        zygote.start(
            "faulty:run_rank",
            spec,
            str(out),
            said=folder / f"rank{rank}.txt",
            env=common | environment(rank),
        )
        for rank, out in enumerate(outs)
    ]
    return ranks, outs


def environment(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def lines(path: Path) -> list:
    """What a rank has logged; a line that was cut off by its end is none."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture
def ended():
    """Ends what a test has started, and all of its workers."""
    started: list[Child] = []
    yield started.extend
    for child in started:
        child.kill()


@pytest.mark.parametrize(
    ("lost", "does", "timeout"),
    [
        (1, "die", 60),
        pytest.param(0, "die", 60, marks=pytest.mark.slow),
        (1, "stop", 4),
        pytest.param(1, "raise", 60, marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_ends_the_job_by_name(zygote, tmp_path, spec, ended, lost, does, timeout):
    """One rank of 3 is killed, stopped (until the process group's timeout) or raises: the others
    end, and name it.
    """
    fault = {"rank": lost, "lesson": 7, "does": does}
    before = zygote.shared_memory()
    ranks, outs = start(
        zygote, tmp_path / "run", 3, spec | {"timeout": timeout, "fault": fault} | three_ranks(spec)
    )
    ended(ranks)
    why = (
        f"1 of 3 ranks did not answer within 5 s (rank {lost});"
        if lost
        else "rank 0, which holds the job's store, has "
    )
    for rank in {0, 1, 2} - {lost}:
        assert ranks[rank].wait(SOON) == 1
        last = ranks[rank].said.strip().splitlines()[-1]
        assert f"AttentError: rank {rank} (" in last
        assert f"could not finish the gathering of all ranks' scores because {why}" in last
        assert "; look for the cause in the log of that rank" in last
        assert "dist_timeout" in last
    if does == "stop":
        assert ranks[lost].poll() is None
        os.kill(ranks[lost].pid, signal.SIGKILL)
    assert ranks[lost].wait(SOON) == (1 if does == "raise" else -signal.SIGKILL)
    if does == "raise":
        last = ranks[lost].said.strip().splitlines()[-1]
        assert "ScoreError: score 'odd' raised ZeroDivisionError; on rank 1 (" in last
        assert "for samples " in last and f"(stream 0, {spec['data']['local']}/shard.000" in last
    assert len({len(lines(out)) for out in outs}) == 1  # nobody has run ahead
    assert until(lambda: zygote.shared_memory() <= before, SOON)  # and so nobody's workers are left


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_lost_while_the_order_is_shared_leaves_no_memory(
    zygote, tmp_path, spec, ended, lost
):
    """The leader, that has written it, or another."""
    before = zygote.shared_memory()
    fault = {"rank": lost, "lesson": 0, "does": "die sharing"}
    ranks, _ = start(zygote, tmp_path / "run", 2, spec | {"fault": fault})
    ended(ranks)
    assert ranks[lost].wait(SOON) == -signal.SIGKILL
    assert ranks[1 - lost].wait(SOON) == 1
    assert (
        "could not finish the sharing of an epoch's order"
        in ranks[1 - lost].said.strip().splitlines()[-1]
    )
    assert until(lambda: zygote.shared_memory() <= before, SOON), zygote.shared_memory() - before


def three_ranks(spec: dict) -> dict:
    return {"data": spec["data"] | {"num_canonical_nodes": 1}}


def test_killed_and_gone_on_with_by_other_numbers_of_ranks(zygote, tmp_path, spec, ended):
    """All ranks killed at once, three times; every lesson that anybody trained on is that of the
    undisturbed run.
    """
    alone = run_epochs(
        make_loader(spec["data"] | {"batch_size": GLOBAL_BATCH}, {}, spec["teacher"]), 2
    )
    expected = [sorted(batch) for batch in alone["lessons"]]
    before, lessons = zygote.shared_memory(), 0
    for world, until_lesson in [(2, 7), (4, 12), (1, 19), (8, 25), (2, None)]:
        ranks, outs = start(zygote, tmp_path / f"from{lessons}", world, spec | {"lessons": lessons})
        ended(ranks)
        if until_lesson is None:
            assert [rank.wait(SOON) for rank in ranks] == [0] * world
        else:
            reached = until_lesson - lessons
            there = until(
                lambda outs=outs, reached=reached: min(len(lines(out)) for out in outs) >= reached,
                SOON,
            )
            assert there, [rank.said[-1000:] for rank in ranks]
            # Stopped first: none sees another's end, and raises
            for signum in (signal.SIGSTOP, signal.SIGKILL):
                for rank in ranks:
                    rank.kill(signum)
            assert [rank.wait(SOON) for rank in ranks] == [-signal.SIGKILL] * world
        logs = [lines(out) for out in outs]
        done = min(map(len, logs))
        assert max(map(len, logs)) <= done + 1  # a lesson is not begun before all ranks are at it
        steps = [sorted(sum((log[step][0] for log in logs), [])) for step in range(done)]
        assert steps == expected[lessons : lessons + done], (world, lessons)
        # Passes, and states
        assert all(len({json.dumps(log[step][1:]) for log in logs}) == 1 for step in range(done))
        spec["state"] = logs[0][done - 1][2]
        lessons += done
    assert lessons == len(expected)
    assert until(lambda: zygote.shared_memory() <= before, SOON)
