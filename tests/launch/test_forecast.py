"""What a run would do, told before it is started."""

import numpy as np
import pytest
from fits import write
from tiny_runs import write_corpus

from attent_stream.launch.config import load_config
from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.forecast import forecast

RUN = """
model:
  name: hf_causal_lm
  architecture: llama
  config_overrides: {hidden_size: 16, num_attention_heads: 2, vocab_size: 256}
train_loader: {name: text, dataset: {local: CORPUS/train, window: 4}, num_workers: 0}
optimizer: {name: adamw}
max_duration: 1ep
global_train_batch_size: 4
device: cpu
algorithms: {attent: {}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def told(corpus, tmp_path):
    def lines(*overrides: str) -> list[str]:
        (tmp_path / "run.yaml").write_text(RUN.replace("CORPUS", corpus))
        return forecast(load_config(tmp_path / "run.yaml", overrides))

    return lines


def test_one_pass(told):
    found = told()
    assert found[0].startswith("data: 96 samples in 1 shards, 0.0 MB")
    assert found[1] == "epoch: 96 samples, 24 batches of 4, 6 windows of 4 batches"
    assert found[2] == "training: 1ep, as long as 24 plain batches (1.00 epochs)"
    assert found[3] == (
        "AtteNT: packed text seen once: nothing is dropped, short pieces of samples come first, "
        "batches are balanced"
    )
    assert len(found) == 4


def test_several_epochs_are_remembered(told):
    found = told("max_duration=72ba")
    assert "as long as 72 plain batches (3.00 epochs)" in found[2]
    assert "the harder ones are chosen by their remembered losses" in found[3]
    assert found[4] == "remembered scores: 0.0 MB of each node"


def test_with_lora_nothing_is_dropped(told):
    found = told("max_duration=72ba", "model.lora={r: 2, target_modules: [q_proj]}")
    assert found[3].startswith("AtteNT: few of the model's weights are trained") and found[4:] == []


def test_padded_text_is_seen_by_its_first_samples(told, tmp_path):
    columns = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}
    ids = [np.arange(3 + 5 * number % 7, dtype=np.int32) for number in range(32)]
    write(tmp_path / "chats", columns, [{"input_ids": one, "labels": one} for one in ids])
    chats = f"train_loader={{name: chat, dataset: {{local: {tmp_path}/chats, window: 4}}}}"
    of_windows = "AtteNT: padded text: nothing is dropped, samples of a batch are of similar length"
    cut = "micro-batches are cut to their longest sample"
    assert told(chats)[3] == f"{of_windows}, {cut}"


def test_scoring_is_told_with_its_cost(told):
    found = told("algorithms={attent: {keep: 0.5, score: residual, remember: never}}")
    assert found[-1].endswith("training costs 0.83 of training on everything")


def test_tokens_are_counted_in_samples(told):
    assert "as long as 12 plain batches (0.50 epochs)" in told("max_duration=1536tok")[2]


def test_what_is_not_known_is_told(told):
    assert told("max_duration=10sec")[2].endswith("how many epochs that is is not known")
    assert told("algorithms={}")[-1] == "no AtteNT: samples are streamed plainly"


def test_streams_are_named(told, corpus):
    two = f"a: {{local: {corpus}/train}}, b: {{local: {corpus}/eval}}"
    found = told(f"train_loader.dataset={{streams: {{{two}}}, window: 4}}")
    assert found[1] == "streams: a 96, b 16"


def test_mistakes_are_one_sentence(told, corpus):
    with pytest.raises(ConfigError, match="folder 'nowhere' does not exist"):
        told("train_loader.dataset={local: nowhere}")
    with pytest.raises(ConfigError, match="there is no column 'text'"):
        told("train_loader.collate={column: text}")
