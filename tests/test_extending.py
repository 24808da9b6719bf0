"""Every example of docs/extending.md, from outside the package and through YAML."""

import re
from pathlib import Path

import pytest
import yaml
from corpora import write_tokens
from omegaconf import OmegaConf

from attent_stream.train import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.S))
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]
# What each run must log, as proof that the example was used.
LOGGED = ["attent/kept_q50", "attent/kept_q50", "attent/by_shard", "distinct/samples"]


def test_there_is_an_example_of_each_seam_under_forty_lines():
    assert sorted(FILES) == [
        "my_arrangements.py",
        "my_effects.py",
        "my_scores.py",
        "my_selectors.py",
    ]
    assert len(EXAMPLES) == 4 and all(text.count("\n") < 40 for text in FILES.values())


@pytest.mark.parametrize("index", range(4))
def test_an_example_trains(tmp_path, monkeypatch, index):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    data = write_tokens(tmp_path / "data" / "train", 96, length=32, vocab=61)
    config = {
        "seed": 17,
        "device": "cpu",
        "model": {
            "name": "hf_causal_lm",
            "architecture": "gpt2",
            "config_overrides": {
                "vocab_size": 61, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2,
            },
        },
        "train_loader": {
            "name": "text",
            "dataset": {"local": str(Path(data).parent), "split": "train", "shuffle": True,
                        "window": 4, "gap": 1},
            "num_workers": 1,
        },
        "optimizer": {"name": "adamw", "lr": 0.01},
        "global_train_batch_size": 4,
        "max_duration": "1ep",
        "progress_bar": False,
        "loggers": {"file_logger": {"filename": str(tmp_path / "log.txt"), "flush_interval": 1}},
        **EXAMPLES[index],
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(config), tmp_path / "run.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["run.yaml"]) == 0
    assert LOGGED[index] in (tmp_path / "log.txt").read_text()
