"""Train one run of a bench in this process."""

import gc
import platform
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from attent_stream.bench.plan import Run, steps_of, tree
from attent_stream.bench.prepare import Prepared
from attent_stream.bench.record import Point, Record
from attent_stream.bench.settings import BenchConfig
from attent_stream.corpus.parallel import available_cores
from attent_stream.launch.config import load_config

WARM_STEPS = 2


def hardware() -> str:
    """Describe the machine by its GPU or its number of usable cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{available_cores()} CPU cores ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    )


class Training:
    """Trains runs of a bench, one after the other. It can be sent to another process.

    Args:
        bench: The bench.
        data: Its data.
        out: Folder of the runs' caches.
        start: Folder of the weights that runs start from. None: random weights.
        say: Called with each line of progress.
    """

    def __init__(
        self,
        bench: BenchConfig,
        data: Prepared,
        out: Path,
        start: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.bench, self.data, self.start = bench, data, start
        self._out, self._say = out, say
        self._warm = False

    def record(self, run: Run, key: str, name: str) -> Record:
        """Train a run.

        Args:
            run: The run.
            key: Its key in the file of results.
            name: What lines of progress begin with.
        """
        if not self._warm:
            # Warm up, because the first steps of a process pay for imports and buffers.
            few = WARM_STEPS / self.bench.steps
            self.points(Run(arm=run.arm, length=few, seed=run.seed, lr=run.lr), "warming up")
            self._warm = True
        self._say(f"{name}: begins, {steps_of(self.bench, run.length)} steps")
        points, positions = self._trained(run, name)
        return Record(
            key=key,
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
            positions=positions,
        )

    def points(self, run: Run, name: str, keep: Path | None = None) -> list[Point]:
        """Train a run, and save the weights to the folder ``keep`` if given."""
        return self._trained(run, name, keep)[0]

    def _trained(
        self, run: Run, name: str, keep: Path | None = None
    ) -> tuple[list[Point], tuple[float, ...]]:
        (self._out / "cache").mkdir(exist_ok=True)
        cache = Path(tempfile.mkdtemp(dir=self._out.absolute() / "cache"))
        try:
            path = cache / "run.yaml"
            config = tree(self.bench, run, self.data, cache, self.start)
            path.write_text(yaml.safe_dump(config), "utf-8")
            return self._fit(path, run, name, keep)
        finally:
            gc.collect()  # Frees the datasets' shared memory.
            shutil.rmtree(cache, ignore_errors=True)

    def _fit(
        self, path: Path, run: Run, name: str, keep: Path | None
    ) -> tuple[list[Point], tuple[float, ...]]:
        from composer.models import HuggingFaceModel

        from attent_stream.bench.flops import shape_of
        from attent_stream.bench.meter import Meter, memory_of
        from attent_stream.bench.positions import loss_by_position
        from attent_stream.launch.build import build_trainer
        from attent_stream.launch.progress import Progress

        bench = self.bench
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
            trainer.state.callbacks.append(Progress(name, self._say))
            trainer.fit()
            if keep is not None:
                network.save_pretrained(keep)
            text = bench.text
            return meter.points, () if text is None else loss_by_position(trainer, text.seq_len)
        finally:
            trainer.close()


def positions_of(bench: BenchConfig, config: Any) -> int:
    """Return the tokens of a sample, the most of a conversation, or patches and class token."""
    if bench.images is None:
        return (bench.text or bench.chat).seq_len
    return (bench.images.size // config.patch_size) ** 2 + 1
