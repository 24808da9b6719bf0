"""The package's YAMLs are read and built, and each pair differs in `algorithms` only."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import write_model

from attent_stream.fit.algorithms import ALGORITHMS
from attent_stream.launch.config import load_config, resolved
from attent_stream.launch.models import build_model, build_tokenizer, hf_config
from attent_stream.launch.parts import (
    callbacks,
    find_algorithm,
    fsdp,
    loggers,
    make,
    optimizers,
    schedulers,
)

FOLDER = Path(__file__).parents[2] / "yamls"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TASKS = sorted(name.removesuffix("_plain") for name in NAMES if name.endswith("_plain"))
PARAMETERS = {  # millions
    "smoke_cpu": (0.5, 1.5),
    "lm_tiny": (3.5, 4.5),
    "lm_125m": (115, 135),
    "lm_1b_fsdp": (1000, 1200),
    "lm_target": (3.5, 4.5),
    "lm_finetune": (0.01, 0.1),
    "vit": (85, 87),
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def given(model_folder):
    """The overrides that a YAML's required variables ask for."""

    def overrides(name: str) -> list[str]:
        values = {
            "data": "corpus",
            "target": "good",
            "remote": "s3://bucket/corpus",
            "local": "cache",
            "tokenizer_path": model_folder,
            "model_path": model_folder,
            "run_name": "test",
        }
        text = (FOLDER / f"{name}.yaml").read_text()
        return [f"{key}={value}" for key, value in values.items() if f"{key}: ???" in text]

    return overrides


def test_there_are_pairs_for_every_task():
    assert {"lm_tiny", "lm_125m", "lm_1b_fsdp", "lm_target", "lm_finetune", "vit"} <= set(TASKS)
    assert set(NAMES) == {f"{task}_{kind}" for task in TASKS for kind in ("plain", "attent")} | {
        "smoke_cpu"
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_pair_differs_in_the_teacher_alone(task, given):
    plain, taught = (
        yaml.safe_load((FOLDER / f"{task}_{kind}.yaml").read_text()) for kind in ("plain", "attent")
    )
    teachers = {
        name: taught["algorithms"].pop(name)
        for name in list(taught["algorithms"])
        if name.startswith("attent") or name in ALGORITHMS.known
    }
    assert len([name for name in teachers if name.startswith("attent")]) == 1
    assert plain == taught
    read = [
        resolved(load_config(FOLDER / f"{task}_{kind}.yaml", given(f"{task}_{kind}")))
        for kind in ("plain", "attent")
    ]
    assert {key for key in read[0] if read[0][key] != read[1][key]} == {"algorithms"}


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_yaml_is_built(name, given):
    config = load_config(FOLDER / f"{name}.yaml", given(name))
    for find, section in (
        (find_algorithm, config.algorithms),
        (callbacks().get, config.callbacks),
        (loggers().get, config.loggers),
    ):
        for name, arguments in section.items():
            make(find(name), arguments, name)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = make(
        optimizers()[config.optimizer.name],
        config.optimizer.arguments,
        "optimizer",
        params=[weight],
    )
    assert optimizer.param_groups[0]["lr"] == config.optimizer.arguments["lr"]
    make(schedulers()[config.scheduler.name], config.scheduler.arguments, "scheduler")
    if config.fsdp_config is not None:
        assert fsdp(config.fsdp_config).sharding_strategy == "FULL_SHARD"


@pytest.mark.parametrize("name", NAMES)
def test_the_model_has_the_size_its_name_says_and_is_ready_for_fsdp(name, given):
    config = load_config(FOLDER / f"{name}.yaml", given(name))
    tokenizer = build_tokenizer(config.tokenizer)
    if config.model.pretrained is None:
        with torch.device("meta"):
            model = build_model(config.model, tokenizer)
    else:
        model = build_model(config.model, tokenizer)
    task = name.removesuffix("_plain").removesuffix("_attent")
    low, high = PARAMETERS[task]
    # The tiny LM's size is said of the vocabulary of 8192 that its corpus has, here the tokenizer
    # holds 256.
    extra = (8192 - 256) * 192 if task in ("lm_tiny", "lm_target") else 0
    assert low <= (sum(weight.numel() for weight in model.parameters()) + extra) / 1e6 <= high
    blocks = [module for module in model.modules() if getattr(module, "_fsdp_wrap", False)]
    layers = hf_config(
        config.model, None if tokenizer is None else len(tokenizer)
    ).num_hidden_layers
    assert len(blocks) >= layers
    expected = (
        {"MulticlassAccuracy", "CrossEntropy"}
        if task == "vit"
        else {"LanguageCrossEntropy", "LanguagePerplexity"}
    )
    assert set(model.get_metrics(is_train=False)) == expected
