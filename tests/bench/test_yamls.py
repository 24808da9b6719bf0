"""The benches that come with the project: every arm of every task is a training YAML that would be
accepted.
"""

from pathlib import Path

import pytest
import yaml

from attent_stream.bench.plan import Run, key, tree
from attent_stream.bench.prepare import Prepared
from attent_stream.bench.settings import load_bench
from attent_stream.launch.config import load_config

FOLDER = Path(__file__).parents[2] / "yamls" / "bench"
PATHS = sorted(path for path in FOLDER.rglob("*.yaml") if not path.stem.endswith("_base"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_arm_is_a_training_yaml(path, tmp_path):
    bench = load_bench(path)
    text = bench.text is not None
    data = Prepared(
        folder=tmp_path,
        train={name: tmp_path / name for name in (bench.text.streams if text else ["images"])},
        held_out={"a": tmp_path / "held"},
        samples=100,
        source="nowhere",
        tokenizer=None if bench.images else tmp_path / "tokenizer",
        classes=10 if bench.images else 0,
        target={"a": tmp_path / "target"},
        sources={
            name: tmp_path / name for name in [*(bench.text.streams if text else []), "noise"]
        },
    )
    start = tmp_path / "weights" if bench.chat else None
    keys = set()
    for name, arm in bench.arms.items():
        run = Run(arm=name, length=arm.lengths[0], seed=1, lr=1e-3)
        made = tmp_path / f"{name}.yaml"
        made.write_text(yaml.safe_dump(tree(bench, run, data, tmp_path / "cache", start)))
        config = load_config(made)
        assert (
            set(arm.algorithms) <= set(config.algorithms)
            and "gradient_clipping" in config.algorithms
        )
        assert (
            config.max_duration == f"{round(arm.lengths[0] * bench.steps)}ba"
            and config.optimizer.arguments["lr"] == 1e-3
        )
        keys.add(key(bench, run, data, None))
    assert len(keys) == len(bench.arms)  # no arm passes for another
    assert path.stem == bench.task
