"""Names of algorithms, callbacks and loggers; a user's own algorithms."""

import inspect

import pytest
from base_run import message
from tiny_runs import write_corpus

from attent_stream import experimental
from attent_stream.launch import parts
from attent_stream.launch.config_check import ConfigError, checked_arguments
from attent_stream.train import main


def test_every_algorithm_callback_and_logger_of_composer_has_a_name():
    from composer import algorithms, callbacks, loggers
    from composer.core import Algorithm, Callback
    from composer.loggers import ConsoleLogger, LoggerDestination, ProgressBarLogger

    def exported(package, base):
        kinds = [getattr(package, name) for name in package.__all__]
        return {
            kind
            for kind in kinds
            if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
        }

    ours = {"attent", "attent_simple", "attent_complex", "choice_log", "progressive_resolution"}
    table = parts.algorithms().known
    assert {made for name, made in table.items() if name not in ours} == exported(
        algorithms, Algorithm
    )
    assert {
        "gradient_clipping",
        "selective_backprop",
        "label_smoothing",
        "mixup",
        "sam",
        *ours,
    } <= set(table)
    assert set(parts.callbacks().values()) == exported(callbacks, Callback)
    assert set(parts.loggers().values()) == exported(loggers, LoggerDestination) - {
        ConsoleLogger,
        ProgressBarLogger,
    }
    assert {"file_logger", "tensorboard", "wandb", "in_memory", "mlflow"} <= set(parts.loggers())


OWN = """
from composer.core import Algorithm, Callback

class Noise(Algorithm):
    def __init__(self, scale: float, seed: int = 3):
        self.scale, self.seed = scale, seed
    def match(self, event, state):
        return False
    def apply(self, event, state, logger):
        pass

class Quiet(Noise):
    def __init__(self):
        super().__init__(0)

class Bare(Algorithm):
    match = apply = None

class Watch(Callback):
    pass

text = "no class"
"""
RUN = """
model: {name: hf_causal_lm, architecture: llama}
train_loader: {name: text, dataset: {local: corpus}}
optimizer: {name: adamw}
max_duration: 1ba
global_train_batch_size: 8
algorithms:
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run ``train --check`` on an ``algorithms`` section; the exit code, stdout and stderr."""
    (tmp_path / "own_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = RUN.replace("corpus", write_corpus(tmp_path / "corpus") + "/train")

    def run(*lines: str, overrides: tuple[str, ...] = ()):
        (tmp_path / "run.yaml").write_text(settings + "".join(f"  {line}\n" for line in lines))
        code = main([str(tmp_path / "run.yaml"), *overrides, "--check"])
        return code, *capsys.readouterr()

    return run


def test_a_class_of_the_users_own_is_found_by_its_path(check):
    code, shown, _ = check(
        "own_module:Noise: {scale: 0.5}", "own_module:Watch:", "attent: {keep: 0.5}"
    )
    assert code == 0 and "own_module:Noise: {scale: 0.5}" in shown
    made = parts.make(parts.find_algorithm("own_module:Noise"), {"scale": 1}, "k")
    assert (made.scale, made.seed, type(made).__name__) == (1.0, 3, "Noise")


def test_overrides_reach_its_settings(check):
    key = "algorithms[own_module:Noise].scale"
    code, shown, _ = check("own_module:Noise: {scale: 0.5}", overrides=(f"{key}=2",))
    assert code == 0 and "own_module:Noise: {scale: 2}" in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "own_module:Noise: {scal: 1}",
            "algorithms.own_module:Noise.scal: unknown key, did you mean 'scale'?",
        ),
        ("own_module:Noise: {scale: big}", "algorithms.own_module:Noise.scale: expected float"),
        ("own_module:Noise: {}", "algorithms.own_module:Noise.scale: missing, expected float"),
        ("own_module:Bare: {x: 1}", "algorithms.own_module:Bare.x: unknown key, no key is"),
        ("own_module:Watch: {x: 1}", "algorithms.own_module:Watch.x: unknown key, no key is"),
        (
            "own_module:text: {}",
            "algorithms.own_module:text: expected a class derived from Composer's Algorithm or "
            "Callback, got 'no class'",
        ),
        ("builtins:dict: {}", "algorithms.builtins:dict: expected a class derived from"),
        (
            "own_module:Nois: {}",
            "algorithms: 'own_module:Nois' cannot be imported: module 'own_module' has no",
        ),
        ("no_module:Noise: {}", "algorithms: 'no_module:Noise' cannot be imported: No module"),
        (":Noise: {}", "algorithms: ':Noise' cannot be imported: "),
        ("atent: {}", "algorithms.atent: unknown algorithm 'atent', did you mean 'attent'?"),
        ("3: {}", "algorithms.3: unknown algorithm 3, expected one of alibi"),
    ],
)
def test_mistakes_in_the_name_or_its_settings_are_one_sentence(check, line, expected):
    code, shown, told = check(line)
    assert (code, shown, told.count("\n")) == (2, "", 1)
    assert told.startswith(f"error: {expected}")


def test_a_name_on_trial_is_found_and_suggested(check, monkeypatch):
    monkeypatch.setitem(experimental.NAMES, "algorithms", {"quiet_trial": "own_module:Quiet"})
    assert check("quiet_trial: {}")[0] == 0
    assert parts.find_algorithm("quiet_trial").__name__ == "Quiet"
    assert "did you mean 'quiet_trial'?" in check("quiet_tria: {}")[2]


def test_only_one_teacher(check):
    assert (
        "expected one teacher, got attent and attent_simple"
        in check("attent:", "attent_simple:")[2]
    )


def test_make_turns_a_constructors_error_into_one_of_the_configuration():
    def picky(x: int):
        raise ValueError("x is odd")

    with pytest.raises(ConfigError, match=r"^k: x is odd$"):
        parts.make(picky, {"x": 3}, "k")


def test_a_preset_takes_the_arguments_of_attent():
    made = parts.algorithms().get("attent_simple")
    assert inspect.signature(made) == inspect.signature(parts.algorithms().get("attent"))
    assert checked_arguments(made, {"keep": 1}, "k") == {"keep": 1.0}


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
