"""Every mistake in a YAML is one sentence with the path of the key."""

import pytest
from base_run import BASE, message

from attent_stream.launch.config import load_config
from attent_stream.launch.config_check import ConfigError


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
