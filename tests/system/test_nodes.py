"""Two nodes for real: the ``composer`` launcher, each node with its own /dev/shm, temporary and
cache folders, and gloo.

Oracle: one rank that nothing happens to. The rank program is the soak's (``tools/soak_rank.py``).
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from ports import free_port  # noqa: E402
from soak import Lessons, read, taught  # noqa: E402
from zygote import PRIVATE, Zygote, private_memory, running, until  # noqa: E402

pytestmark = pytest.mark.processes

SOON = 900  # imports take most of it, and minutes on a machine that is used by others


class Job:
    """A start of the run: a launcher a node."""

    def __init__(self, folder: Path, spec: dict, start: str, nodes: int, ranks: int) -> None:
        self.folder, self.world = folder, nodes * ranks
        path = folder / f"{start}.json"
        path.write_text(json.dumps(spec | {"folder": str(folder), "start": start}))
        self.logs = [folder / f"{start}.rank{rank}.jsonl" for rank in range(self.world)]
        port = str(free_port())
        self.nodes, self._said = [], []
        for node in range(nodes):
            tmp = folder / f"tmp{node}"
            tmp.mkdir(exist_ok=True)
            env = os.environ | {"TMPDIR": str(tmp), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            command = [
                *PRIVATE,
                sys.executable,
                "-m",
                "composer.cli",
                "-n",
                str(ranks),
                "--world_size",
                str(self.world),
            ]
            command += [
                "--node_rank",
                str(node),
                "--master_addr",
                "127.0.0.1",
                "--master_port",
                port,
            ]
            for stream in ("stdout", "stderr"):
                command += [
                    f"--{stream}",
                    str(folder / f"{start}.node{node}.rank{{rank}}.{stream}"),
                ]
            command += [str(ROOT / "tools" / "soak_rank.py"), str(path)]
            self._said.append(folder / f"{start}.node{node}.txt")
            with open(self._said[-1], "w") as said:
                launched = subprocess.Popen(
                    command, env=env, cwd=tmp, stdout=said, stderr=said, start_new_session=True
                )
            self.nodes.append(launched)

    def reaches(self, lessons: int) -> None:
        """Returns when all ranks have trained on so many lessons of this start."""
        assert until(
            lambda: all(len(read(log)) >= lessons for log in self.logs) or self.ended, SOON
        ), self.said
        assert not self.ended, self.said

    @property
    def ended(self) -> bool:
        return all(node.poll() is not None for node in self.nodes)

    @property
    def said(self) -> str:
        """Everything that launchers and ranks have said."""
        files = sorted(self.folder.glob("*.std*")) + self._said
        return "\n".join(f"{path.name}: {path.read_text()[-2500:]}" for path in files)

    def ends(self) -> list[int]:
        """Exit codes, once all launchers have ended."""
        assert until(lambda: self.ended, SOON), self.said
        return [node.returncode for node in self.nodes]

    def ranks(self, node: int) -> list[psutil.Process]:
        return psutil.Process(self.nodes[node].pid).children()

    def kill(self) -> None:
        """Everything at once, as machines that go."""
        families = [
            p.pid
            for n in self.nodes
            if n.poll() is None
            for p in psutil.Process(n.pid).children(recursive=True)
        ]
        for pid in [node.pid for node in self.nodes if node.poll() is None] + families:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: self.ended and not running(families), SOON)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not private_memory(),
    reason="no mount namespaces here (unshare -rm): two nodes cannot be told apart",
)
def test_two_nodes_train_save_and_go_on_elsewhere(tmp_path):
    zygote = Zygote(["soak_rank"], [str(ROOT / "tools"), str(ROOT)])
    corpus = str(tmp_path / "corpus")
    assert (
        zygote.start("soak_rank:write_corpus", corpus, 300, 5, said=tmp_path / "corpus.txt").wait(
            SOON
        )
        == 0
    )
    data = {
        "remote": corpus,
        "local": str(tmp_path / "whole"),
        "shuffle": True,
        "num_canonical_nodes": 2,
        "window": 5,
    }
    spec = {
        "batch": 8,
        "duration": "2ep",
        "data": data | {"gap": 1},
        "attent": {"select": "hard", "keep": 0.5},
        "workers": 1,
        "save": "2ba",
    }
    whole = tmp_path / "whole"
    whole.mkdir()
    alone = spec | {"folder": str(whole), "start": "whole"}
    rank = zygote.start(
        "soak_rank:run", alone, said=tmp_path / "whole.txt", env={"TMPDIR": str(whole)}
    )
    assert rank.wait(SOON) == 0, rank.said
    lessons = Lessons(
        of={line["batch"]: taught([line]) for line in read(whole / "whole.rank0.jsonl")}
    )
    zygote.close()

    # Two nodes of two ranks, the data of one ten times slower than a step: the others wait, and
    # none runs ahead.
    folder = tmp_path / "slow"
    folder.mkdir()
    job = Job(
        folder,
        spec | {"slow": 0.1, "data": spec["data"] | {"local": str(folder / "cache")}},
        "1",
        nodes=2,
        ranks=2,
    )
    assert job.ends() == [0, 0], job.said
    logs = [read(log) for log in job.logs]
    assert [len(log) for log in logs] == [len(lessons.of)] * 4
    assert lessons.hold(logs)
    passes = [[line["passes"] for line in log] for log in logs]
    assert passes[1:] == passes[:-1] and passes[0][-1] > 20

    # Two nodes; a rank killed on the second; one node of two ranks, all killed; two nodes again, to
    # the end.
    folder = tmp_path / "killed"
    folder.mkdir()
    spec["data"] |= {"local": str(folder / "cache")}
    job = Job(folder, spec, "1", nodes=2, ranks=1)
    job.reaches(7)
    (lost,) = job.ranks(node=1)
    lost.kill()
    assert all(code != 0 for code in job.ends())
    assert "Rank 1 crashed with exit code -9" in job.said
    assert "because 1 of 2 ranks did not answer within 5 s (rank 1); look for the" in job.said
    starts = [job]
    job = Job(folder, spec, "2", nodes=1, ranks=2)
    starts.append(job)
    job.reaches(9)
    job.kill()
    job = Job(folder, spec, "3", nodes=2, ranks=1)
    starts.append(job)
    assert job.ends() == [0, 0], job.said
    first = []
    for start in starts:
        logs = [read(log) for log in start.logs]
        assert abs(len(logs[0]) - len(logs[1])) <= 1
        assert lessons.hold(logs)
        first.append(logs[0][0]["batch"])
    assert 1 == first[0] < first[1] < first[2]  # each went on from a checkpoint of the one before
    assert logs[0][-1]["batch"] == len(lessons.of)
