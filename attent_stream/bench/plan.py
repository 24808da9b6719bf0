"""List the runs of a bench, and build the training configuration of each."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attent_stream.bench.filtered import FILTERED, filtered_folder
from attent_stream.bench.prepare import MEAN, STD, Prepared, digest
from attent_stream.bench.settings import PLAIN, ArmConfig, BenchConfig

VERSION = 1  # Of the measurements: a change repeats every run.
SWEEP, ARM = "sweep", "arm"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run.

    Args:
        arm: The arm's name.
        length: Share of the task's steps.
        seed: Seed of weights, order and draws.
        lr: Peak learning rate.
        role: ``sweep`` (plain, to find the learning rate) or ``arm``.
    """

    arm: str
    length: float
    seed: int
    lr: float
    role: str = ARM

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.arm} {self.length:g} seed {self.seed}" + (
            f" lr {self.lr:g}" if self.role == SWEEP else ""
        )


def _streams(arm: ArmConfig, data: Prepared, cache: Path) -> dict[str, dict[str, Any]]:
    """The streams that an arm is trained on."""
    folders, shares = data.train, {}
    if arm.mix is not None:
        folders = {name: data.sources[name] for name in arm.mix}
        shares = {name: {"proportion": share} for name, share in arm.mix.items()}
    if arm.target_only:
        folders = data.target
    if arm.filtered is not None:
        folders = {FILTERED: filtered_folder(data, arm.filtered)}
    return {
        name: {
            "remote": str(folder.absolute()),
            "local": str(cache / "train" / name),
            **shares.get(name, {}),
        }
        for name, folder in folders.items()
    }


def _with_target(arm: ArmConfig, data: Prepared) -> dict[str, Any]:
    """An arm's algorithms, where ``target: bench`` is replaced by the task's target."""
    algorithms = copy.deepcopy(arm.algorithms)
    if algorithms.get("attent", {}).get("target") == "bench":
        algorithms["attent"]["target"] = [
            {"remote": str(folder.absolute())} for folder in data.target.values()
        ]
    return algorithms


def steps_of(bench: BenchConfig, length: float) -> int:
    """Return the optimizer steps of a length."""
    return max(1, round(length * bench.steps))


def sweep(bench: BenchConfig) -> list[Run]:
    """List a plain run of each learning rate, or none if there is only one rate."""
    if len(bench.learning_rates) == 1:
        return []
    return [
        Run(arm=PLAIN, length=bench.sweep_length, seed=bench.seeds[0], lr=lr, role=SWEEP)
        for lr in bench.learning_rates
    ]


def arm_runs(bench: BenchConfig, lr: float) -> list[Run]:
    """List the runs of all arms and lengths seed by seed.

    So an interrupted bench has complete seeds, and arms alternate in time.
    """
    return [
        Run(arm=name, length=length, seed=seed, lr=lr)
        for seed in bench.seeds
        for name, arm in bench.arms.items()
        for length in sorted(arm.lengths, reverse=True)
    ]


def key(bench: BenchConfig, run: Run, data: Prepared, start: str | None) -> str:
    """Hash the settings that a run's numbers depend on, except machine and folders.

    Args:
        bench: The task.
        run: The run.
        data: Its data.
        start: Fingerprint of the initial weights; None for random ones.
    """
    arm = bench.arms[run.arm]
    kept = {name: getattr(bench, name) for name in ("task", "base", "metric", "evals")}
    steps = steps_of(bench, run.length)
    later: list[Any] = [arm.mix, arm.filtered] if arm.mix or arm.filtered else []
    later += ["target_only"] if arm.target_only else []
    parts = [VERSION, kept, steps, arm.algorithms, run.seed, run.lr, run.role]
    return digest([*parts, data.fingerprint, start, *later])


def tree(
    bench: BenchConfig, run: Run, data: Prepared, cache: Path, start: Path | None
) -> dict[str, Any]:
    """Build the training YAML of a run.

    Args:
        bench: The task.
        run: The run.
        data: Its data.
        cache: A new, empty folder for streamed shards; Streaming rejects one that is still in a
            killed run's shared memory.
        start: Folder of pretrained weights; None for random ones.
    """
    made = copy.deepcopy(bench.base)
    steps = steps_of(bench, run.length)
    made |= {
        "seed": run.seed,
        "max_duration": f"{steps}ba",
        "progress_bar": False,
        "run_name": None,
    }
    made["eval_interval"] = f"{max(1, -(-steps // bench.evals))}ba"
    made["optimizer"] = {**made.get("optimizer", {}), "lr": run.lr}
    arm = bench.arms[run.arm]
    made["algorithms"] = {**_with_target(arm, data), **made.get("algorithms", {})}
    made["loggers"] = {"in_memory": {}}
    loader = made.setdefault("train_loader", {})
    loader["name"] = "image" if bench.kind == "images" else bench.kind
    loader["dataset"] = {
        "shuffle": True,
        **loader.get("dataset", {}),
        "shuffle_seed": run.seed,
        "streams": _streams(arm, data, cache),
    }
    made["eval_loader"] = [
        {
            "name": loader["name"],
            "label": label,
            "num_workers": 0,
            "drop_last": False,
            "dataset": {"remote": str(folder.absolute()), "local": str(cache / "held_out" / label)},
        }
        for label, folder in data.held_out.items()
    ]
    if bench.images is not None:
        collate = {"size": bench.images.size, "mean": MEAN, "std": STD}
        loader["collate"] = {"augment": True, **loader.get("collate", {}), **collate}
        for held in made["eval_loader"]:
            held["collate"] = {"augment": False, **collate}
        overrides = {"image_size": bench.images.size, "num_labels": data.classes}
        made["model"]["config_overrides"] = {
            **made["model"].get("config_overrides", {}),
            **overrides,
        }
    else:
        made["tokenizer"] = {"path": str(data.tokenizer)}
    if start is not None:
        kept = {name: made["model"][name] for name in ("name", "lora") if name in made["model"]}
        made["model"] = {**kept, "pretrained": str(start)}
    return made
