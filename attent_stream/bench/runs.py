"""Run a bench: data, learning rate, then all arms that are not finished."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attent_stream.bench.filtered import write_filtered
from attent_stream.bench.plan import Run, arm_runs, key, steps_of, sweep
from attent_stream.bench.pool import trained
from attent_stream.bench.prepare import Prepared, digest, prepare
from attent_stream.bench.record import Record, append, read_records
from attent_stream.bench.settings import PLAIN, ArmConfig, BenchConfig
from attent_stream.bench.training import Training
from attent_stream.launch.progress import duration

RESULTS = "runs.jsonl"


def best_rate(bench: BenchConfig, records: Sequence[Record]) -> float:
    """Return the learning rate of the best sweep run; raise ValueError without one."""
    sign = -1 if bench.higher else 1
    return min(records, key=lambda record: sign * record.last.quality).lr


class BenchRun:
    """A bench in a folder.

    Args:
        bench: The bench.
        data: Folder of the sources. None: Python's standard library, or drawn shapes.
        out: Folder of data, pretrained weights and ``runs.jsonl``.
        say: Called with each line of progress.
        processes: Runs that are trained at a time.
    """

    def __init__(
        self,
        bench: BenchConfig,
        data: Path | None,
        out: Path,
        say: Callable[[str], None] = print,
        processes: int = 1,
    ) -> None:
        self.bench = bench
        self._say, self._out, self._processes = say, out, processes
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out / "cache", ignore_errors=True)  # Left by a killed run.
        pretrain = bench.pretrain
        if pretrain is None:
            self.data = prepare(bench.data, data, out)
            start = self.data.weights
        else:
            before = prepare(pretrain.data, data, out)
            self.data = prepare(bench.data, data, out, before.tokenizer)
            start = self._pretrained(before)
        self._training = Training(bench, self.data, out, start, say)
        say(f"{bench.task}: {self.data.samples:,} samples per epoch from {self.data.source}")

    def run(self, seeds: int | None = None, train: bool = True) -> list[Record]:
        """Train the missing runs, and return the bench's records.

        Args:
            seeds: Use only the first seeds. None: all.
            train: If false, return only the existing records.
        """
        swept = self._each(sweep(self.bench), train)
        lr = best_rate(self.bench, swept) if swept else self.bench.learning_rates[0]
        chosen = self.bench.seeds[:seeds]
        return swept + self._each(
            [run for run in arm_runs(self.bench, lr) if run.seed in chosen], train
        )

    def _each(self, runs: Sequence[Run], train: bool) -> list[Record]:
        start = self._training.start
        named = {key(self.bench, run, self.data, start and start.name): run for run in runs}
        there = {record.key: record for record in read_records(self._out / RESULTS)}
        if train:
            self._train([(run, name) for name, run in named.items() if name not in there], there)
        return [there[name].measured_by(self.bench.quality_of) for name in named if name in there]

    def _train(self, missing: list[tuple[Run, str]], there: dict[str, Record]) -> None:
        """Train runs, and put their records into ``there`` and the file."""
        for run, _ in missing:
            share = self.bench.arms[run.arm].filtered
            if share is not None:
                write_filtered(self.data, share)
        jobs = [
            (run, name, f"  {number}/{len(missing)} {run.name}")
            for number, (run, name) in enumerate(missing, 1)
        ]
        said = {name: line for _, name, line in jobs}
        left = {name: steps_of(self.bench, run.length) for run, name in missing}
        every, begun = sum(left.values()), time.monotonic()
        for record in trained(self._training, jobs, self._processes):
            there[record.key] = record
            append(self._out / RESULTS, record)
            del left[record.key]
            rest = sum(left.values())
            wait = (time.monotonic() - begun) / (every - rest) * rest
            last = record.measured_by(self.bench.quality_of).last
            self._say(
                f"{said[record.key]}: {self.bench.metric} {last.quality:.4f}, "
                f"{last.step} steps, "
                f"{last.step_equivalents:.0f} in step-equivalents, {last.seconds:.0f} s"
                + (f"; {len(left)} runs left, about {duration(wait)}" if left else "")
            )

    def _pretrained(self, data: Prepared) -> Path:
        """Return the folder of the pretrained weights, and train them if it is missing."""
        pretrain, bench = self.bench.pretrain, self.bench
        name = digest([bench.base, pretrain.steps, pretrain.lr, data.fingerprint, bench.seeds[0]])
        folder = self._out / "pretrained" / name
        if not folder.is_dir():
            self._say(f"{bench.task}: pretraining {pretrain.steps} steps ...")
            plain = BenchConfig(
                task=bench.task,
                base=bench.base,
                steps=pretrain.steps,
                arms={PLAIN: ArmConfig(lengths=[1])},
                text=pretrain.data,
                metric=bench.metric,
                evals=1,
            )
            run = Run(arm=PLAIN, length=1, seed=bench.seeds[0], lr=pretrain.lr)
            half = folder.with_name(f"{name}.half")
            shutil.rmtree(half, ignore_errors=True)
            Training(plain, data, self._out, say=self._say).points(run, "  pretraining", keep=half)
            half.rename(folder)
        return folder
