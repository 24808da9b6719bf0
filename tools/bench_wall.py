"""Measure by the clock what a step costs with AtteNT's defaults, and without.

    python tools/bench_wall.py --data FOLDER [--tasks mix,repeated] [--rounds 3] [--out FILE]
    python tools/bench_wall.py --quick       # one task on Python's standard library, two minutes

Each job is a task of ``yamls/bench/``, as long as its table below says. In one process, plain and
taught runs of a job alternate, so that a machine that becomes slower is slower for both. Plain and
taught runs have as many steps, without evaluations. Told are the medians over rounds of taught
over plain: wall time of a step, and processor time of a step, of the training process and of the
loader's workers. The first steps, in which a process warms up, are left out.

Nothing else should run on the machine meanwhile.
"""

import argparse
import gc
import json
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
WARM = 20  # steps that are left out


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
    "target_pycode": Job(arm="default", length=0.25),
}


class Clock(Callback):
    """Wall and processor seconds of the steps after the first ``WARM``.

    Args:
        steps: Steps of the run.
    """

    def __init__(self, steps: int) -> None:
        self._last = steps
        self._began: tuple[float, float, float] | None = None
        self.seconds: dict[str, float] = {}

    def batch_end(self, state: State, logger: Any) -> None:
        """Start after the first steps. Stop at the last, while the workers are there."""
        step = int(state.timestamp.batch)
        if step == WARM:
            self._began = _now()
        if step == self._last and self._began is not None:
            spent = [
                (now - before) / (step - WARM)
                for now, before in zip(_now(), self._began, strict=True)
            ]
            self.seconds = dict(zip(("wall", "training", "workers"), spent, strict=True))


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


def step_seconds(bench: BenchConfig, data: Prepared, run: Run, out: Path, workers: int) -> dict:
    """Train a run, and return the seconds of a step by kind."""
    from attent_stream.launch.build import build_trainer
    from attent_stream.launch.config import load_config

    with tempfile.TemporaryDirectory(dir=out) as scratch:
        made = tree(bench, run, data, Path(scratch), None)
        made["eval_loader"] = []
        made["train_loader"]["num_workers"] = workers
        path = Path(scratch) / "run.yaml"
        path.write_text(yaml.safe_dump(made), "utf-8")
        steps = int(made["max_duration"].removesuffix("ba"))
        clock, trainer = Clock(steps), build_trainer(load_config(path))
        try:
            trainer.state.callbacks.append(clock)
            trainer.fit()
        finally:
            trainer.close()
            del trainer
            gc.collect()  # frees the data sets' shared memory
    if not clock.seconds:
        raise SystemExit(f"a run of {bench.task} has no {WARM} steps to warm up and one more")
    return clock.seconds


def measured(
    bench: BenchConfig, data: Prepared, job: Job, out: Path, workers: int, rounds: int
) -> dict[str, Any]:
    """Measure a job with so many workers. The order of the two alternates between rounds."""
    rate, seed = bench.learning_rates[0], bench.seeds[0]
    both = [Run(arm=arm, length=job.length, seed=seed, lr=rate) for arm in (PLAIN, job.arm)]
    found: list[list[dict]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            found[which].append(step_seconds(bench, data, both[which], out, workers))
    result: dict[str, Any] = {"task": bench.task, "arm": job.arm, "workers": workers}
    for kind in ("wall", "training", "workers"):
        plain, taught = ([one[kind] for one in rows] for rows in found)
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
                row = measured(bench, data, job, Path(scratch), workers, rounds)
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
