"""A training YAML for tests of the configuration."""

import pytest

from attent_stream.launch.config import load_config
from attent_stream.launch.config_check import ConfigError

BASE = """
variables:
  data: ???
  width: 64
model:
  name: hf_causal_lm
  architecture: llama
  config_overrides: {hidden_size: "${variables.width}"}
train_loader:
  name: text
  dataset:
    local: ${variables.data}
    shuffle: true
    streams: null
  num_workers: 0
optimizer: {name: decoupled_adamw, lr: 1e-3}
scheduler: {name: cosine_with_warmup, t_warmup: 10ba}
callbacks: {lr_monitor: null}
max_duration: 10ba
global_train_batch_size: 8
"""


def message(path, *overrides) -> str:
    """Read a YAML with overrides, and return the one sentence that refuses it."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["data=corpus", *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)
