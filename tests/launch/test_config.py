"""The YAML reader: what it takes, and that every mistake is one sentence with the path of
the key.
"""

import dataclasses
from pathlib import Path

import pytest

from attent_stream.base.redaction import masked
from attent_stream.launch.config import load_config, resolved, resolved_yaml
from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.config_sections import TeachingConfig

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


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    return path


def message(path, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["data=corpus", *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_resolves_and_types(base):
    config = load_config(
        base, ["data=corpus", "optimizer.betas=[0.9,0.99]", "train_loader.dataset.window=8"]
    )
    assert config.train_loader.dataset == TeachingConfig(local="corpus", shuffle=True, window=8)
    assert config.model.config_overrides == {"hidden_size": 64}
    assert config.optimizer.name == "decoupled_adamw"
    assert config.optimizer.arguments == {"lr": 1e-3, "betas": [0.9, 0.99]}
    assert config.callbacks == {"lr_monitor": {}}
    assert config.seed == 17 and config.eval_loaders == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3


def test_overrides_in_order_and_bare_variables(base):
    config = load_config(base, ["data=a", "width=32", "width=16", "max_duration=2ep"])
    assert config.variables == {"data": "a", "width": 16}
    assert config.model.config_overrides == {"hidden_size": 16}
    assert config.max_duration == "2ep"


def test_override_with_a_mapping_replaces_the_section(base):
    config = load_config(
        base, ["data=a", "optimizer={name: sgd, lr: 0.1}", "callbacks={}", "scheduler=null"]
    )
    assert (
        config.optimizer.arguments == {"lr": 0.1}
        and config.callbacks == {}
        and config.scheduler is None
    )


def test_override_reaches_into_lists(base):
    loader = "{name: text, dataset: {local: held_out}, num_workers: 0}"
    config = load_config(
        base, ["data=a", f"eval_loader=[{loader}]", "eval_loader[0].dataset.local=other"]
    )
    assert config.eval_loaders[0].dataset.local == "other"


def test_resolved_yaml_reads_back_alike(base, tmp_path):
    config = load_config(
        base, ["data=a", "algorithms.ema.half_life=null", "algorithms.ema.smoothing=0.9"]
    )
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(config))
    assert load_config(again) == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("max_duraton=3ba", "max_duraton: unknown key, did you mean 'max_duration'?"),
        (
            "train_loader.datset.shuffle=true",
            "train_loader.datset: unknown key, did you mean 'dataset'?",
        ),
        (
            "train_loader.dataset.shufle=true",
            "train_loader.dataset.shufle: unknown key, did you mean 'shuffle'?",
        ),
        (
            "train_loader.dataset.allow_unsafe_types=true",
            "train_loader.dataset.allow_unsafe_types: unknown key",
        ),
        (
            "train_loader.dataset.streams.web.propotion=1",
            "train_loader.dataset.streams.web.propotion: unknown key, did you",
        ),
        ("model.architectur=gpt2", "model.architectur: unknown key, did you mean 'architecture'?"),
        ("optimizer.lrr=1", "optimizer.lrr: unknown key, did you mean 'lr'?"),
        ("scheduler.t_warmpu=1ba", "scheduler.t_warmpu: unknown key, did you mean 't_warmup'?"),
        (
            "algorithms.gradient_clipping.clip_type=norm",
            "algorithms.gradient_clipping.clip_type: unknown key, did you mean",
        ),
        (
            "callbacks.lr_monitor.every=1",
            "callbacks.lr_monitor.every: unknown key, no key is expected here",
        ),
        (
            "callbacks.nan_monitor.every=1",
            "callbacks.nan_monitor.every: unknown key, no key is expected here",
        ),
        (
            "loggers.tensorboard.logdir=x",
            "loggers.tensorboard.logdir: unknown key, did you mean 'log_dir'?",
        ),
        (
            "fsdp_config.shardng_strategy=FULL_SHARD",
            "fsdp_config.shardng_strategy: unknown key, did you mean 'sharding_s",
        ),
        (
            "compile_config.mod=max-autotune",
            "compile_config.mod: unknown key, did you mean 'mode'?",
        ),
    ],
)
def test_unknown_keys_are_refused_by_path_with_the_nearest(base, override, expected):
    assert message(base, override).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected", "listed"),
    [
        (
            "algorithms.gradient_cliping={}",
            "algorithms.gradient_cliping: unknown algorithm",
            "did you mean 'gradient_clipping'",
        ),
        (
            "algorithms.zzz={}",
            "algorithms.zzz: unknown algorithm 'zzz', expected one of alibi,",
            "selective_backprop",
        ),
        (
            "callbacks.speedmonitor={}",
            "callbacks.speedmonitor: unknown callback",
            "did you mean 'speed_monitor'?",
        ),
        (
            "loggers.tensorbord={}",
            "loggers.tensorbord: unknown logger",
            "did you mean 'tensorboard'?",
        ),
        (
            "optimizer.name=adanw",
            "optimizer.name: unknown optimizer 'adanw'",
            "did you mean 'adamw'? (known: adagrad, adam, ",
        ),
        (
            "scheduler.name=cosine_warmup",
            "scheduler.name: unknown scheduler",
            "'cosine_with_warmup'?",
        ),
        (
            "model.name=hf_casual_lm",
            "model.name: unknown value 'hf_casual_lm'",
            "did you mean 'hf_causal_lm'? (known: hf_ca",
        ),
        ("train_loader.name=txt", "train_loader.name: unknown value 'txt'", "did you mean 'text'?"),
        ("precision=bf16", "precision: unknown value 'bf16'", "did you mean 'amp_bf16'?"),
        (
            "train_loader.dataset.shuffle_algo=py1b",
            "train_loader.dataset.shuffle_algo: unknown value",
            "py1e",
        ),
    ],
)
def test_unknown_names_list_the_good_ones(base, override, expected, listed):
    text = message(base, override)
    assert text.startswith(expected) and listed in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=x", "seed: expected int, got str 'x'"),
        ("seed=true", "seed: expected int, got bool True"),
        ("seed=1.5", "seed: expected int, got float 1.5"),
        ("seed=null", "seed: expected int, got null"),
        ("run_name=12", "run_name: expected str, got int 12"),
        ("progress_bar=1", "progress_bar: expected bool, got int 1"),
        (
            "device_train_microbatch_size=all",
            "device_train_microbatch_size: expected int or 'auto', got str 'all'",
        ),
        ("train_loader=corpus", "train_loader: expected mapping, got str 'corpus'"),
        (
            "train_loader.dataset.window=big",
            "train_loader.dataset.window: expected int, got str 'big'",
        ),
        ("eval_loader=3", "eval_loader: expected mapping or list, got int 3"),
        ("algorithms=[attent]", "algorithms: expected mapping, got list ['attent']"),
        (
            "algorithms.gradient_clipping=1.0",
            "algorithms.gradient_clipping: expected mapping, got float 1.0",
        ),
        (
            "algorithms.gradient_clipping={clipping_type: norm, clipping_threshold: high}",
            "algorithms.gradient_clipping.clipping_threshold: expected float, got str 'high'",
        ),
        ("load_ignore_keys=optim", "load_ignore_keys: expected list, got str 'optim'"),
        (
            "max_duration=ten",
            "max_duration: expected a time such as '100ba', '1ep' or '1e9tok', got 'ten'",
        ),
        (
            "global_train_batch_size=0",
            "global_train_batch_size: expected a positive number of samples, got 0",
        ),
        ("fsdp_config.version=3", "fsdp_config.version: expected 1 or 2, got 3"),
    ],
)
def test_wrong_types_name_expected_and_received(base, override, expected):
    assert message(base, override) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer={lr: 1}", "optimizer.name: missing, expected str"),
        (
            "model={name: hf_causal_lm}",
            "model: expected exactly one of architecture and pretrained, got neither",
        ),
        (
            "model.pretrained=x",
            "model: expected exactly one of architecture and pretrained, got both",
        ),
        ("train_loader={name: text}", "train_loader.dataset: missing, expected mapping"),
        (
            "train_loader.dataset={shuffle: true}",
            "train_loader.dataset: expected streams, remote or local, got none",
        ),
        (
            "train_loader.dataset.local=null",
            "train_loader.dataset: expected streams, remote or local, got none",
        ),
        (
            "train_loader.dataset={streams: {a: {local: x, repeat: 1, choose: 3}}}",
            "train_loader.dataset.streams.a: expected at most one of proportion, repeat and "
            "choose, got",
        ),
        (
            "train_loader.dataset.streams={a: {local: x}}",
            "train_loader.dataset: expected either streams or remote/local, got",
        ),
        (
            "train_loader.prefetch_factor=2",
            "train_loader: expected prefetch_factor of 1 or more with workers, got 2",
        ),
        (
            "algorithms.gradient_clipping={clipping_type: norm}",
            "algorithms.gradient_clipping.clipping_threshold: missing",
        ),
        ("scheduler={name: cosine_with_warmup}", "scheduler.t_warmup: missing"),
        ("autoresume=true", "autoresume: expected save_folder and run_name too"),
        ("model={name: hf_masked_lm, architecture: bert}", "tokenizer: missing"),
        (
            "train_loader.name=image",
            "train_loader.name: 'image' does not go with model 'hf_causal_lm'",
        ),
        (
            "algorithms={attent: {}, attent_simple: {}}",
            "algorithms: expected one teacher, got attent and attent_simple",
        ),
    ],
)
def test_missing_and_contradicting_settings(base, override, expected):
    assert message(base, override).startswith(expected)


@pytest.mark.parametrize(
    "key", ["model", "train_loader", "optimizer", "max_duration", "global_train_batch_size"]
)
def test_missing_required_key(base, tmp_path, key):
    import yaml

    tree = yaml.safe_load(BASE)
    del tree[key]
    path = tmp_path / "less.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert message(path).startswith(f"{key}: missing, expected ")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("attent.kep=0.5", "algorithms.attent.kep: unknown key, did you mean 'keep'?"),
        ("attent.seed=x", "algorithms.attent.seed: expected int, got str 'x'"),
        (
            "attent_simple.selekt=hard",
            "algorithms.attent_simple.selekt: unknown key, did you mean 'select'?",
        ),
        (
            "atent={}",
            "algorithms.atent: unknown algorithm 'atent', did you mean 'attent'? (known: alibi",
        ),
    ],
)
def test_our_own_algorithm_is_checked_like_composers(base, argument, expected):
    assert message(base, f"algorithms.{argument}").startswith(expected)


@pytest.mark.parametrize("override", ["max_duration", "=3", "--max_duration"])
def test_malformed_override(base, override):
    assert f"expected an override like key=value, got {override!r}" in message(base, override)


@pytest.mark.parametrize(
    "override", ["seed=[1", "seed={a: 1", "optimizer.lr.x=3", "eval_loader[0].x=1"]
)
def test_override_that_cannot_be_applied_names_its_key(base, override):
    assert message(base, override).startswith(override.split("=")[0].split(".")[0].split("[")[0])


def test_missing_variable_says_how_to_give_it(base):
    with pytest.raises(
        ConfigError, match=r"^variables.data: missing, give it as data=\.\.\. on the command line$"
    ):
        load_config(base)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [1", "not a readable YAML file"),
        ("a: 1\na: 2", "found duplicate key a (line 2, column 1)"),
        ("- a\n- b", "expected a mapping of keys, got a list"),
        (
            "just words",
            "just words: unknown key, expected one of accumulate_train_batch_on_tokens, algorithms",
        ),
        ("a: ${b", "not a readable YAML file"),
        ("", "model: missing, expected mapping"),
        (
            "a: ${variables.dat}\nvariables: {data: x}",
            "a: cannot be resolved, Interpolation key 'variables.dat' not found, did",
        ),
    ],
)
def test_unreadable_files(tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_missing_binary_and_folder_files(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    for name, expected in (
        ("none.yaml", "cannot be read, No such file"),
        ("binary.yaml", "not a readable YAML file"),
        ("", "cannot be read, Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / name)
        assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_credentials_are_masked(base):
    config = load_config(
        base,
        [
            "data=a",
            "loggers.slack={slack_logging_api_key: hush, channel_id: c}",
            "variables.aws_secret_access_key=hush",
            "loggers.mlflow.tracking_uri='https://me:hush@host/x'",
            "train_loader.dataset.max_seq_len=64",
            "load_ignore_keys=[state/optimizers]",
        ],
    )
    shown = resolved_yaml(config)
    assert "hush" not in shown
    tree = resolved(config)
    assert tree["loggers"]["slack"] == {"slack_logging_api_key": "***", "channel_id": "c"}
    assert tree["loggers"]["mlflow"]["tracking_uri"] == "https://***@host/x"
    assert tree["load_ignore_keys"] == ["state/optimizers"]


@pytest.mark.parametrize(
    "key", ["tokenizer", "input_key", "max_tokens", "token_count", "keep", "monkey", "eos_token"]
)
def test_what_is_no_credential_is_shown(key):
    assert masked({key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    "key",
    ["api_key", "apikey", "token", "hub_token", "password", "AWS_SECRET_ACCESS_KEY", "credentials"],
)
def test_what_is_a_credential_is_masked(key):
    assert masked({"a": [{key: ["value"]}]}) == {"a": [{key: "***"}]}
