"""A Trainer from a configuration: what is connected, and what this machine cannot run."""

import json
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


CHAT = """
model:
  name: hf_causal_lm
  architecture: llama
  config_overrides:
    {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
  lora: {r: 2, target_modules: [q_proj]}
tokenizer: {path: CORPUS/tokenizer}
train_loader:
  name: chat
  dataset: {local: CORPUS/sums/train, shuffle: true, window: 2, gap: 1, max_seq_len: 48}
  num_workers: 0
eval_loader: {name: chat, dataset: {local: CORPUS/sums/valid}, num_workers: 0}
optimizer: {name: adamw, lr: 1e-3}
algorithms: {attent: {remember: always}}
max_duration: 3ep
global_train_batch_size: 8
progress_bar: false
save_folder: RUN
save_interval: 8ba
save_overwrite: true
device: cpu
"""


def test_conversations_are_trained_on_with_lora_and_resumed(tmp_path):
    from chat_files import CHATML, chat_tokenizer

    from attent_stream.corpus import ChatCorpusSettings, sources_from, write_chat_corpus

    lines = [json.dumps({"prompt": f"{n} and {n}", "answer": f"{2 * n}"}) for n in range(100)]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    write_chat_corpus(
        ChatCorpusSettings(
            sources=sources_from([str(tmp_path / "sums.jsonl")]),
            out=str(tmp_path / "corpus"),
            tokenizer=chat_tokenizer(tmp_path / "tokenizer", CHATML),
            splits=(("valid", 0.2),),
        )
    )
    text = CHAT.replace("CORPUS", str(tmp_path / "corpus")).replace("RUN", str(tmp_path / "run"))
    (tmp_path / "chat.yaml").write_text(text)
    ends = []
    for more in ([], [f"load_path={tmp_path / 'run' / 'ep1-ba16-rank0.pt'}"]):
        trainer = build_trainer(load_config(tmp_path / "chat.yaml", more))
        try:
            trainer.fit()
            metric = trainer.state.eval_metrics["eval"]["LanguageCrossEntropy"]
            ends.append(float(metric.compute()))
            attent, _ = trainer.state.algorithms  # and a log beside the checkpoints
            assert attent.settings.keep is None and "harder ones" in attent.fit.run.told
        finally:
            trainer.close()
    assert ends[0] == ends[1]
