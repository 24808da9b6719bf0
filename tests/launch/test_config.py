"""The YAML reader."""

import dataclasses

import pytest

from attent_stream.base.redaction import masked
from attent_stream.launch.config import load_config, resolved, resolved_yaml
from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.config_sections import TeachingConfig


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
