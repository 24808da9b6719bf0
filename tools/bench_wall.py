"""Measure by the clock what a step costs with AtteNT's defaults, and without.

    python tools/bench_wall.py --data FOLDER [--tasks mix,repeated] [--rounds 3] [--out FILE]
    python tools/bench_wall.py --quick       # one task on Python's standard library, two minutes

Each job is a task of ``yamls/bench/``, as long as its table below says. A plain and a taught run of
a job are two processes that take turns of 20 steps, so that both see a machine that becomes slower.
They have as many steps, without evaluations. Told are the medians over rounds of taught over plain:
wall time of a step, and processor time of a step, of the training process and of the loader's
workers. The first steps of a run, in which it warms up, and of a turn are left out.

On a machine that does other work, processor times are the better measure.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import yaml
from composer import Callback, State

from attent_stream.bench.plan import Run, tree
from attent_stream.bench.prepare import Prepared
from attent_stream.bench.runs import BenchRun
from attent_stream.bench.settings import PLAIN, BenchConfig, load_bench
from attent_stream.bench.training import hardware

YAMLS = Path(__file__).resolve().parent.parent / "yamls" / "bench"
WARM = 20  # steps of a run that are left out
TURN = 20  # steps of a turn
SETTLED = 5  # of them left out: the workers have batches ready
PATIENCE = 600  # longest wait for a turn, in seconds


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task's arm, and how long it is trained as a share of the task's steps.

    A task that reads its data several times must be as long as it is: what it does depends on it.
    """

    arm: str
    length: float


JOBS = {
    "mix": Job(arm="default", length=0.25),
    "repeated": Job(arm="default", length=1.0),
    "finetune": Job(arm="default", length=1.0),
    "vit": Job(arm="resolution", length=1.0),
    "ladder_batch32": Job(arm="default", length=0.25),
    "target_pycode": Job(arm="default", length=0.25),
}


class Turns(Callback):
    """Lets a run take turns with another, and measures its steps.

    Args:
        steps: Steps of the run.
        mine: Released by the other run when it is this one's turn.
        other: To release for the other run.
    """

    def __init__(self, steps: int, mine: Any, other: Any) -> None:
        self._last, self._mine, self._other = steps, mine, other
        self._began: tuple[float, float, float] | None = None
        self._first: tuple[int, float] | None = None  # a step, and the workers' seconds until then
        self._spent, self._counted = [0.0, 0.0], 0
        self.seconds: dict[str, float] = {}

    def fit_start(self, state: State, logger: Any) -> None:
        """Wait for the first turn."""
        self._wait()

    def batch_end(self, state: State, logger: Any) -> None:
        """Measure from a turn's first steps to its end, and hand over."""
        step = int(state.timestamp.batch)
        if step > WARM and step % TURN == SETTLED:
            self._began = _now()
            self._first = self._first or (step, self._began[2])
        if step % TURN and step != self._last:
            return
        if self._began is not None:
            now = _now()
            for kind in (0, 1):
                self._spent[kind] += now[kind] - self._began[kind]
            self._counted += step % TURN or TURN
            self._counted -= SETTLED
            self._began = None
        if step == self._last and self._first is not None:
            first, before = self._first
            wall, training = (spent / self._counted for spent in self._spent)
            workers = (_now()[2] - before) / (step - first)
            self.seconds = {"wall": wall, "training": training, "workers": workers}
        self._other.release()
        if step < self._last:
            self._wait()

    def _wait(self) -> None:
        if not self._mine.acquire(timeout=PATIENCE):
            raise SystemExit("the other run has ended or hangs")


def _now() -> tuple[float, float, float]:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    workers = ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        workers += times.user + times.system
    return time.perf_counter(), time.process_time(), workers


def train(
    bench: BenchConfig, data: Prepared, run: Run, workers: int, turns: tuple[Any, Any], found: Any
) -> None:
    """Train a run in this process, and send the seconds of a step by kind."""
    from attent_stream.launch.build import build_trainer
    from attent_stream.launch.config import load_config

    with tempfile.TemporaryDirectory() as scratch:
        made = tree(bench, run, data, Path(scratch), None)
        made["eval_loader"] = []
        made["train_loader"]["num_workers"] = workers
        path = Path(scratch) / "run.yaml"
        path.write_text(yaml.safe_dump(made), "utf-8")
        steps = int(made["max_duration"].removesuffix("ba"))
        measured, trainer = Turns(steps, *turns), build_trainer(load_config(path))
        try:
            trainer.state.callbacks.append(measured)
            trainer.fit()
            found.send(measured.seconds)
        finally:
            trainer.close()


def in_turns(
    bench: BenchConfig, data: Prepared, runs: Sequence[Run], workers: int, first: int
) -> list[dict[str, float]]:
    """Train two runs in turns, and return the seconds of a step by kind of each."""
    context = multiprocessing.get_context("spawn")
    turns = [context.Semaphore(int(which == first)) for which in (0, 1)]
    pipes, processes = [context.Pipe(duplex=False) for _ in runs], []
    for which, run in enumerate(runs):
        given = (bench, data, run, workers, (turns[which], turns[1 - which]), pipes[which][1])
        processes.append(context.Process(target=train, args=given))
        processes[-1].start()
        pipes[which][1].close()
    try:
        found = [receiver.recv() for receiver, _ in pipes]
    except EOFError:
        raise SystemExit(f"a run of {bench.task} failed") from None
    finally:
        for process in processes:
            process.join(PATIENCE)
            process.kill()
    if not all(found):
        raise SystemExit(f"a run of {bench.task} has no {WARM} steps to warm up and a turn more")
    return found


def measured(
    bench: BenchConfig, data: Prepared, job: Job, workers: int, rounds: int
) -> dict[str, Any]:
    """Measure a job with so many workers. Who begins alternates between rounds."""
    rate, seed = bench.learning_rates[0], bench.seeds[0]
    both = [Run(arm=arm, length=job.length, seed=seed, lr=rate) for arm in (PLAIN, job.arm)]
    found = [in_turns(bench, data, both, workers, number % 2) for number in range(rounds)]
    result: dict[str, Any] = {"task": bench.task, "arm": job.arm, "workers": workers}
    for kind in ("wall", "training", "workers"):
        plain, taught = ([pair[which][kind] for pair in found] for which in (0, 1))
        result[f"{kind}_plain_ms"] = round(1e3 * statistics.median(plain), 3)
        result[f"{kind}_taught_ms"] = round(1e3 * statistics.median(taught), 3)
        if min(plain) > 0:
            ratios = sorted(b / a for a, b in zip(plain, taught, strict=True))
            result[f"{kind}_ratio"] = round(statistics.median(ratios), 4)
            result[f"{kind}_ratios"] = [round(one, 4) for one in ratios]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--tasks", default=",".join(JOBS), metavar="NAME,...")
    parser.add_argument("--workers", default="1,2", metavar="N,...")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    names = ["mix"] if given.quick else given.tasks.split(",")
    for unknown in set(names) - set(JOBS):
        raise SystemExit(f"--tasks: expected some of {', '.join(JOBS)}, got {unknown!r}")
    counts = [1] if given.quick else [int(one) for one in given.workers.split(",")]
    rows = []
    for name in names:
        bench, job = load_bench(YAMLS / f"{name}.yaml"), JOBS[name]
        with tempfile.TemporaryDirectory() as scratch:
            data = BenchRun(bench, given.data, Path(scratch), say=lambda line: None).data
            for workers in counts:
                rounds = 2 if given.quick else given.rounds
                row = measured(bench, data, job, workers, rounds)
                rows.append(row)
                print(
                    f"{name:14} {workers} workers: a plain step {row['wall_plain_ms']:6.1f} ms; "
                    f"taught over plain {row['wall_ratio']:.3f} by the clock, "
                    f"{row['training_ratio']:.3f} of the training process's processor time, "
                    f"workers {row['workers_plain_ms']:.1f} -> {row['workers_taught_ms']:.1f} ms",
                    flush=True,
                )
    made = {"date": str(date.today()), "hardware": hardware(), "rows": rows}
    print(json.dumps({"wall_ratio": max(row["wall_ratio"] for row in rows)}))
    if given.out:
        given.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
