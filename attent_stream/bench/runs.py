"""Run a bench in one process: data, learning rate, then all arms that are not finished."""

import gc
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from attent_stream.bench.filtered import write_filtered
from attent_stream.bench.plan import Run, arm_runs, key, sweep, tree
from attent_stream.bench.prepare import Prepared, digest, prepare
from attent_stream.bench.record import Point, Record, append, read_records
from attent_stream.bench.settings import PLAIN, ArmConfig, BenchConfig
from attent_stream.corpus.parallel import available_cores
from attent_stream.launch.config import load_config

RESULTS = "runs.jsonl"
WARM_STEPS = 2


def hardware() -> str:
    """Describe the machine by its GPU or its number of usable cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{available_cores()} CPU cores ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    )


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
    """

    def __init__(
        self, bench: BenchConfig, data: Path | None, out: Path, say: Callable[[str], None] = print
    ) -> None:
        self.bench = bench
        self._say = say
        self._out = out
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out / "cache", ignore_errors=True)  # Left by a killed run.
        self._warm = False
        self._start: Path | None = None
        pretrain = bench.pretrain
        settings = bench.text if bench.text is not None else bench.images
        if pretrain is None:
            self.data = prepare(settings, data, out)
        else:
            before = prepare(pretrain.data, data, out)
            self.data = prepare(settings, data, out, before.tokenizer)
            self._start = self._pretrained(before)
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
        there = {record.key: record for record in read_records(self._out / RESULTS)}
        found = []
        for number, run in enumerate(runs, 1):
            name = key(self.bench, run, self.data, self._start and self._start.name)
            if name not in there and not train:
                continue
            if name not in there:
                there[name] = self._record(run, name)
                append(self._out / RESULTS, there[name])
                last = there[name].measured_by(self.bench.quality_of).last
                self._say(
                    f"  {number}/{len(runs)} {run.name}: {self.bench.metric} {last.quality:.4f}, "
                    f"{last.step} steps, "
                    f"{last.step_equivalents:.0f} in step-equivalents, {last.seconds:.0f} s"
                )
            found.append(there[name].measured_by(self.bench.quality_of))
        return found

    def _record(self, run: Run, name: str) -> Record:
        if not self._warm:
            # Warm up, because the first steps of a process pay for imports and buffers.
            few = WARM_STEPS / self.bench.steps
            self._train(
                self.bench,
                Run(arm=run.arm, length=few, seed=run.seed, lr=run.lr),
                self.data,
                self._start,
            )
            self._warm = True
        points = self._train(self.bench, run, self.data, self._start)
        return Record(
            key=name,
            task=self.bench.task,
            arm=run.arm,
            length=run.length,
            seed=run.seed,
            lr=run.lr,
            role=run.role,
            hardware=hardware(),
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            points=tuple(points),
            note=f"data: {self.data.source}",
        )

    def _train(
        self,
        bench: BenchConfig,
        run: Run,
        data: Prepared,
        start: Path | None,
        keep: Path | None = None,
    ) -> list[Point]:
        """Train once, and save the weights to the folder ``keep`` if given."""
        share = bench.arms[run.arm].filtered
        if share is not None:
            write_filtered(data, share)
        (self._out / "cache").mkdir(exist_ok=True)
        cache = Path(tempfile.mkdtemp(dir=self._out.absolute() / "cache"))
        try:
            path = cache / "run.yaml"
            path.write_text(yaml.safe_dump(tree(bench, run, data, cache, start)), "utf-8")
            return _fit(bench, path, keep)
        finally:
            gc.collect()  # Frees the datasets' shared memory.
            shutil.rmtree(cache, ignore_errors=True)

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
            self._train(plain, run, data, None, keep=half)
            half.rename(folder)
        return folder


def _fit(bench: BenchConfig, path: Path, keep: Path | None) -> list[Point]:
    from composer.models import HuggingFaceModel

    from attent_stream.bench.flops import shape_of
    from attent_stream.bench.meter import Meter, memory_of
    from attent_stream.launch.build import build_trainer

    trainer = build_trainer(load_config(path))
    try:
        model = trainer.state.model
        network = model.model if isinstance(model, HuggingFaceModel) else model.module.model
        shape = shape_of(network, network.config, positions_of(bench, network.config))
        meter = Meter(
            bench.metric,
            memory_of(trainer),
            shape,
            None if bench.images is None else bench.images.size,
        )
        trainer.state.callbacks.append(meter)
        trainer.fit()
        if keep is not None:
            network.save_pretrained(keep)
        return meter.points
    finally:
        trainer.close()


def positions_of(bench: BenchConfig, config: Any) -> int:
    """Return the tokens of a sample, or its patches and class token."""
    if bench.text is not None:
        return bench.text.seq_len
    return (bench.images.size // config.patch_size) ** 2 + 1
