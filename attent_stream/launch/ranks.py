"""Translate a launcher's environment variables to those of Composer and torch.distributed.

Composer's launcher sets all of them, and torchrun all but ``NODE_RANK``. ``srun`` and ``mpirun``
use their own names.
"""

import re
from collections.abc import Mapping
from zlib import crc32

from attent_stream.launch.config_check import ConfigError

_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_NEEDED = (*_COUNTS, "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
# SLURM's first reserved step number, for the batch script, the interactive shell and others.
_NO_STEP = 0xFFFFFFF0
_PORTS = range(20_000, 30_000)  # Below the ports that systems give to outgoing connections.
_MPI = {
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpiexec": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
_MPI_JOB = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_ID")


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set for this process's rank, or none if it runs alone.

    Variables that are set keep their values. ``RANK`` and ``WORLD_SIZE`` take precedence, then
    ``mpirun``, then a step of ``srun``. A process in the shell of ``salloc`` or the script of
    ``sbatch`` runs alone, however many tasks the job has.

    Raises:
        ConfigError: There are several processes, and the variables are incomplete or contradict
            each other.
    """
    given = {name: environment[name] for name in _NEEDED if environment.get(name)}
    if "RANK" in given and "WORLD_SIZE" in given:
        launcher, found = "the environment", {}
        if environment.get("GROUP_RANK"):
            launcher, found = "torchrun", {"NODE_RANK": environment["GROUP_RANK"]}
    else:
        launcher, found = _launcher(environment)
    for name, value in found.items():
        rendezvous = name.startswith("MASTER_")  # A script may choose another address.
        if given.setdefault(name, value) != value and not rendezvous:
            raise ConfigError(
                f"{name}: {given[name]!r} is set, but {launcher} says {value!r}; unset {name}, or "
                "set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and NODE_RANK as the composer "
                "launcher does"
            )
    if _number(given, "WORLD_SIZE", 1) == 1 and _number(given, "RANK", 0) == 0:
        return {}
    _complete(given, launcher)
    return {name: given[name] for name in _NEEDED if environment.get(name) != given[name]}


def _launcher(environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the launcher's name and variables; there are none for a single process."""
    for launcher, names in _MPI.items():
        # srun --mpi=pmi2 also sets mpiexec's first two variables, but not the other two.
        if all(environment.get(name) for name in names[:2]) and (
            environment.get(names[2]) or not _step(environment)
        ):
            found = {
                ours: environment[name]
                for ours, name in zip(_COUNTS, names, strict=True)
                if environment.get(name)
            }
            alone = _number(found, "WORLD_SIZE", 1) == 1
            return launcher, {} if alone else found | {
                "MASTER_PORT": _port(_job(environment, _MPI_JOB))
            }
    return "srun", _slurm(environment)


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    if not _step(environment):
        if _number(environment, "SLURM_PROCID", 0):
            raise ConfigError(
                f"SLURM_STEP_ID: missing, but SLURM_PROCID is {environment['SLURM_PROCID']}; start "
                "the processes with srun and keep its variables"
            )
        return {}
    counts = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    counted = next((name for name in counts if environment.get(name)), None)
    tasks = 1 if counted is None else _number(environment, counted, 1)
    if tasks == 1 and not _number(environment, "SLURM_PROCID", 0):
        return {}
    if environment.get("SLURM_PTY_PORT"):
        raise ConfigError(
            f"{counted}: the srun step has {tasks} tasks and was started with --pty, so it is "
            "unclear whether all of them train; start training without --pty, or start one process "
            "with RANK=0 WORLD_SIZE=1"
        )
    names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "NODE_RANK": "SLURM_NODEID"}
    found = {ours: environment[name] for ours, name in names.items() if environment.get(name)}
    found["WORLD_SIZE"] = str(tasks)
    local = _tasks_a_node(environment, tasks)
    if local is not None:
        found["LOCAL_WORLD_SIZE"] = str(local)
        hosts = next((environment[name] for name in _HOSTS if environment.get(name)), None)
        if local == tasks:
            found["MASTER_ADDR"] = "127.0.0.1"
        elif hosts:
            found["MASTER_ADDR"] = _first_host(hosts)
    found["MASTER_PORT"] = _port(
        _job(environment, ("SLURM_JOB_ID", "SLURM_JOBID")) + "." + _step_id(environment)
    )
    return found


_HOSTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_LAUNCH_NODE_IPADDR")


def _step_id(environment: Mapping[str, str]) -> str:
    return environment.get("SLURM_STEP_ID") or environment.get("SLURM_STEPID") or ""


def _step(environment: Mapping[str, str]) -> bool:
    """Return whether this process is a task of an srun step."""
    step = _step_id(environment)
    if step:
        return step.isdigit() and int(step) < _NO_STEP  # Others are "batch", "extern", ...
    return bool(environment.get("SLURM_STEP_NUM_TASKS"))


def _tasks_a_node(environment: Mapping[str, str], tasks: int) -> int | None:
    """Return the tasks on each node of a step, or None if unknown.

    Raises:
        ConfigError: The nodes have different numbers of tasks.
    """
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        text = environment.get(name, "")
        if not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
            continue
        counts = [
            int(n)
            for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
            for _ in range(int(times or 1))
        ]
        if sum(counts) != tasks:
            continue  # This counts the allocation, and the step is smaller.
        if len(set(counts)) > 1:
            raise ConfigError(
                f"{name}: expected as many tasks on each node, got {text!r}; give srun "
                "--ntasks-per-node"
            )
        return counts[0]
    if 1 in (
        _number(environment, name, 0)
        for name in ("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    ):
        return tasks
    return _number(environment, "SLURM_NTASKS_PER_NODE", 0) or None


def _first_host(hosts: str) -> str:
    """Return the first host of a SLURM node list, such as ``gpu03`` of ``gpu[03-05,9],x1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)[0]
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)


def _job(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _port(job: str) -> str:
    """Derive a port from the job's name, so that its processes agree and other jobs rarely do."""
    return str(_PORTS[crc32(job.encode()) % len(_PORTS)])


def _complete(given: dict[str, str], launcher: str) -> None:
    """Derive missing variables; raise ConfigError if one is missing or contradicts another."""
    numbers = {name: _number(given, name, None) for name in (*_COUNTS, "NODE_RANK")}
    rank, world, local_rank, local = (numbers[name] for name in _COUNTS)
    if local is not None and local == world:
        given.setdefault("MASTER_ADDR", "127.0.0.1")
    if None not in (rank, local_rank, local) and local:
        given.setdefault("NODE_RANK", str(rank // local))
    missing = [name for name in _NEEDED if name not in given]
    if missing:
        shown = ", ".join(f"{name}={given[name]}" for name in _NEEDED if name in given)
        raise ConfigError(
            f"{missing[0]}: missing, {shown} do not determine this process's rank; start with "
            f"composer, torchrun or srun, or set {', '.join(missing)}"
        )
    if not (0 <= rank < world and 0 <= local_rank < local <= world):
        raise ConfigError(
            "RANK: expected 0 <= RANK < WORLD_SIZE and 0 <= LOCAL_RANK < LOCAL_WORLD_SIZE <= "
            f"WORLD_SIZE, got {', '.join(f'{name}={given[name]}' for name in _COUNTS)}"
        )
    if world % local or rank != rank // local * local + local_rank:
        raise ConfigError(
            "RANK: expected consecutive ranks and as many on each node, got "
            f"{', '.join(f'{name}={given[name]}' for name in _COUNTS)} from {launcher}; use srun "
            "--distribution=block --ntasks-per-node, or mpirun --map-by ppr:N:node"
        )


def _number(values: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = values.get(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"{name}: expected a whole number in the environment, got {text!r}"
        ) from None
