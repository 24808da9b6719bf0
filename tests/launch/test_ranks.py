"""How runs are started where Composer's launcher is not: ranks from torchrun's, SLURM's and MPI's
variables.

Oracles: the variables that Composer's launcher sets for the same place in the same job, and an
undisturbed run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import write_corpus

from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.ranks import rank_variables
from attent_stream.train import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from ports import free_port  # noqa: E402

YAML = str(ROOT / "yamls" / "smoke_cpu.yaml")
COMPOSER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def composer(rank: int, local: int, nodes: int) -> dict[str, str]:
    """Counts as ``composer`` sets them."""
    counts = {
        "RANK": rank,
        "WORLD_SIZE": local * nodes,
        "LOCAL_RANK": rank % local,
        "LOCAL_WORLD_SIZE": local,
    }
    return {name: str(count) for name, count in (counts | {"NODE_RANK": rank // local}).items()}


def torchrun(rank: int, local: int, nodes: int) -> dict[str, str]:
    given = composer(rank, local, nodes) | COMPOSER
    return given | {"GROUP_RANK": given.pop("NODE_RANK"), "TORCHELASTIC_RUN_ID": "none"}


def srun(rank: int, local: int, nodes: int, **more: str) -> dict[str, str]:
    hosts = "gpu7" if nodes == 1 else f"gpu[07-{6 + nodes:02}]"
    tasks = str(local) if nodes == 1 else f"{local}(x{nodes})"
    return {
        "SLURM_JOB_ID": "815",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(local * nodes),
        "SLURM_NTASKS": str(local * nodes),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % local),
        "SLURM_NODEID": str(rank // local),
        "SLURM_JOB_NODELIST": hosts,
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
    } | more


def mpirun(rank: int, local: int, nodes: int) -> dict[str, str]:
    names = {"RANK": rank, "SIZE": local * nodes, "LOCAL_RANK": rank % local, "LOCAL_SIZE": local}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()} | {
        "PMIX_NAMESPACE": "prterun-7@1"
    }


def counts_of(environment: dict[str, str]) -> dict[str, str]:
    """What a process would see then, without where the ranks meet."""
    seen = environment | rank_variables(environment)
    return {name: seen[name] for name in composer(0, 1, 1)}


@pytest.mark.parametrize("launcher", [torchrun, srun, mpirun])
@pytest.mark.parametrize(("local", "nodes"), [(2, 1), (1, 3), (4, 2)])
def test_every_launcher_tells_what_composers_does(launcher, local, nodes):
    meets = set()
    for rank in range(local * nodes):
        environment = launcher(rank, local, nodes)
        if launcher is mpirun and nodes > 1:
            environment["MASTER_ADDR"] = "gpu07"  # mpirun tells no host
        assert counts_of(environment) == composer(rank, local, nodes)
        seen = environment | rank_variables(environment)
        meets.add((seen["MASTER_ADDR"], seen["MASTER_PORT"]))
    (meet,) = meets
    assert (
        meet[0] == ("127.0.0.1" if nodes == 1 or launcher is torchrun else "gpu07")
        and 1024 < int(meet[1]) < 65536
    )


def test_composers_own_variables_are_left_alone():
    assert rank_variables(composer(3, 2, 2) | COMPOSER) == {}
    assert (
        rank_variables(composer(3, 2, 2) | COMPOSER | srun(1, 1, 2)) == {}
    )  # its launcher in a step of srun
    assert rank_variables(torchrun(3, 2, 2) | srun(1, 1, 2)) == {"NODE_RANK": "1"}
    assert rank_variables(
        srun(1, 2, 1) | {"MASTER_ADDR": "here", "MASTER_PORT": "1234", "WORLD_SIZE": "2"}
    ).keys() == {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"}


ALLOCATION = {
    "SLURM_JOB_ID": "815",
    "SLURM_NTASKS": "8",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}
SCRIPT = ALLOCATION | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        composer(0, 1, 1),
        torchrun(0, 1, 1),
        srun(0, 1, 1),
        mpirun(0, 1, 1),
        ALLOCATION,  # the shell of salloc on a login node
        SCRIPT,  # the script of sbatch
        *(
            SCRIPT | {"SLURM_STEP_ID": step}
            for step in ("4294967291", "4294967290", "4294967292", "batch", "extern", "interactive")
        ),
        srun(0, 1, 1, SLURM_PTY_PORT="1", SLURM_NTASKS="8"),  # srun --pty bash
        {"RANK": "0", "WORLD_SIZE": "1"} | srun(0, 4, 1, SLURM_PTY_PORT="1"),
    ],
)
def test_one_process_stays_one(environment):
    assert rank_variables(environment) == {}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK: missing"),
        ({"RANK": "1"}, "WORLD_SIZE: missing"),
        # PyTorchJob
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "LOCAL_RANK: missing",
        ),
        (composer(2, 2, 2), "MASTER_ADDR: missing"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK: expected a whole number"),
        (composer(3, 2, 2) | COMPOSER | {"RANK": "7"}, "RANK: expected 0 <= RANK < WORLD_SIZE"),
        (torchrun(2, 2, 2) | {"NODE_RANK": "0"}, "NODE_RANK: '0' is set, but torchrun says '1'"),
        (srun(1, 2, 1) | {"WORLD_SIZE": "1"}, "WORLD_SIZE: '1' is set, but srun says '2'"),
        (srun(3, 2, 2) | {"NODE_RANK": "0"}, "NODE_RANK: '0' is set, but srun says '1'"),
        # Dealt out in turn
        (srun(1, 2, 2) | {"SLURM_NODEID": "1", "SLURM_LOCALID": "0"}, "--distribution=block"),
        (
            srun(1, 2, 2) | {"SLURM_STEP_TASKS_PER_NODE": "3,1"},
            "SLURM_STEP_TASKS_PER_NODE: expected as many tasks on each",
        ),
        (
            {name: value for name, value in srun(1, 2, 1).items() if name != "SLURM_LOCALID"},
            "LOCAL_RANK: missing",
        ),
        (SCRIPT | {"SLURM_PROCID": "3"}, "SLURM_STEP_ID: missing"),
        (
            srun(0, 8, 1, SLURM_PTY_PORT="1"),
            "SLURM_STEP_NUM_TASKS: the srun step has 8 tasks and was started with --pty",
        ),
        (mpirun(1, 1, 2), "MASTER_ADDR: missing"),
        (mpirun(1, 2, 2) | {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "MASTER_ADDR": "a"}, "--map-by ppr"),
    ],
)
def test_what_does_not_tell_ranks_apart_is_one_sentence(environment, named, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=re.escape(named)):
        rank_variables(environment)
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_")) or name in composer(0, 1, 1) | COMPOSER:
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([YAML, "data=nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_srun_without_the_steps_own_counts():
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")
    bare = {name: value for name, value in srun(3, 2, 2).items() if name not in names}
    assert counts_of(bare | {"SLURM_TASKS_PER_NODE": "2(x2)"}) == composer(3, 2, 2)
    assert counts_of(bare | {"SLURM_NTASKS_PER_NODE": "2"}) == composer(3, 2, 2)
    # A step that is a part of its allocation.
    part = srun(1, 2, 1) | {
        "SLURM_STEP_TASKS_PER_NODE": "",
        "SLURM_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NUM_NODES": "1",
    }
    assert counts_of(part) == composer(1, 2, 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def no_process_group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def overrides(corpus: str, saved: Path, batches: int) -> list[str]:
    return [
        f"data={corpus}",
        "seq_len=32",
        "vocab_size=256",
        "train_loader.num_workers=0",
        f"max_duration={batches}ba",
        f"eval_interval={batches}ba",
        "train_loader.dataset.num_canonical_nodes=2",
        f"save_folder={saved}",
        "save_interval=3ba",
        "run_name=r",
        "autoresume=true",
    ]


def by_torchrun(port: str) -> list[tuple[list[str], dict[str, str]]]:
    start = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    return [([*start, "-m", "attent_stream.train"], {})]


def by_srun(port: str) -> list[tuple[list[str], dict[str, str]]]:
    return [
        (["-m", "attent_stream.train"], srun(rank, 2, 1) | {"MASTER_PORT": port})
        for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("launcher", [by_torchrun, by_srun])
def test_two_ranks_go_on_with_a_run_of_one(corpus, tmp_path, capsys, no_process_group, launcher):
    def alone(saved: str, batches: int) -> str:
        assert main([YAML, *overrides(corpus, tmp_path / saved, batches)]) == 0
        torch.distributed.destroy_process_group()
        return capsys.readouterr().out.splitlines()[-1]

    undisturbed = alone("whole", 6)
    alone("cut", 3)
    taken = (
        {name for name in os.environ if name.startswith("SLURM_")}
        | composer(0, 1, 1).keys()
        | COMPOSER.keys()
    )
    plain = {name: value for name, value in os.environ.items() if name not in taken} | {
        "OMP_NUM_THREADS": "1"
    }
    started = [
        subprocess.Popen(
            [sys.executable, *command, YAML, *overrides(corpus, tmp_path / "cut", 6)],
            env=plain | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in launcher(str(free_port()))
    ]
    told = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), told
    (line,) = [line for out, _ in told for line in out.splitlines() if line.startswith("trained ")]
    assert line.split(";")[0] == undisturbed.split(";")[0]
    entropies = [
        float(re.search(r"CrossEntropy ([0-9.]+)", some)[1]) for some in (line, undisturbed)
    ]
    assert abs(entropies[0] - entropies[1]) < 2e-3
