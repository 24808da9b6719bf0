"""A Trainer from a configuration: what is connected, and what this machine cannot run."""

from pathlib import Path

import pytest
import torch
from composer.core import Algorithm, Callback
from tiny_runs import write_corpus

from attent_stream.launch.build import build_trainer, check_machine, eval_paths
from attent_stream.launch.config import load_config
from attent_stream.launch.config_check import ConfigError

YAML = Path(__file__).parents[2] / "yamls" / "smoke_cpu.yaml"
SMALL = ["seq_len=32", "vocab_size=256", "train_loader.num_workers=0", "progress_bar=false"]
OWN = """
from composer.core import Algorithm, Callback

class Idle(Algorithm):
    def match(self, event, state):
        return False
    def apply(self, event, state, logger):
        pass

class Watch(Callback):
    def __init__(self, every: int):
        self.every = every
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_algorithms_and_callbacks_of_the_users_own_are_connected(corpus, tmp_path, monkeypatch):
    (tmp_path / "own_build.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = "algorithms={attent: {}, 'own_build:Idle': {}, 'own_build:Watch': {every: 5}}"
    more = [f"data={corpus}", *SMALL, listed, "callbacks={lr_monitor: {}}"]
    trainer = build_trainer(load_config(YAML, more))
    try:
        named = {type(made).__name__: made for made in trainer.state.algorithms}
        assert list(named) == ["AtteNT", "Idle"] and isinstance(named["Idle"], Algorithm)
        hooks = {type(made).__name__: made for made in trainer.state.callbacks}
        assert {"Watch", "LRMonitor"} <= set(hooks) and hooks["Watch"].every == 5
        assert isinstance(hooks["Watch"], Callback) and trainer.state.timestamp.batch == 0
    finally:
        trainer.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_a_batch_must_be_shared_evenly_by_the_ranks(corpus):
    config = load_config(YAML, [f"data={corpus}", *SMALL])
    check_machine(config, config.global_train_batch_size)
    with pytest.raises(ConfigError, match=r"^global_train_batch_size: expected a multiple of the"):
        check_machine(config, config.global_train_batch_size + 1)


def test_loaders_are_named_by_their_keys(corpus):
    loader = "{name: text, dataset: {local: x}, label: %s}"
    many = f"eval_loader=[{loader % 'a'}, {loader % 'b'}]"
    paths = [
        [path for path, _ in eval_paths(load_config(YAML, [f"data={corpus}", *more]))]
        for more in ([], [many], ["eval_loader=null"])
    ]
    assert paths == [["eval_loader"], ["eval_loader[0]", "eval_loader[1]"], []]
