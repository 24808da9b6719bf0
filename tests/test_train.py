"""The train command: tiny runs of the YAMLs that come with the package, and its exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from streaming import MDSWriter
from tiny_runs import write_corpus, write_model

from attent_stream.train import main

pytestmark = pytest.mark.processes

FOLDER = Path(__file__).parents[1] / "yamls"
SMALL_LM = ["seq_len=32", "vocab_size=256"]


@pytest.fixture(autouse=True)
def no_process_group():
    """Composer leaves torch.distributed initialised, which is nothing for the next test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    import io

    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng([2])
    for split, samples in (("train", 64), ("eval", 8)):
        with MDSWriter(
            out=str(folder / split), columns={"image": "bytes", "label": "int"}
        ) as writer:
            for index in range(samples):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                encoded = io.BytesIO()
                Image.fromarray(pixels).save(encoded, "JPEG")
                writer.write({"image": encoded.getvalue(), "label": index % 4})
    return str(folder)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


def train(capsys, name: str, *overrides: str) -> str:
    """Run a YAML in this process; the summary line."""
    assert main([str(FOLDER / f"{name}.yaml"), *overrides]) == 0
    return capsys.readouterr().out.strip().splitlines()[-1]


def cross_entropy(summary: str) -> float:
    return float(re.search(r"CrossEntropy ([0-9.]+)", summary)[1])


def smoke(corpus: str, *overrides: str) -> list[str]:
    return [
        f"data={corpus}",
        *SMALL_LM,
        "train_loader.num_workers=0",
        "max_duration=6ba",
        "eval_interval=6ba",
        *overrides,
    ]


def test_smoke_is_taught_counts_what_it_trains_on_and_repeats(corpus, capsys):
    first = train(capsys, "smoke_cpu", *smoke(corpus))
    assert first.startswith(
        "trained 6 batches, 48 samples, 1536 tokens; eval LanguageCrossEntropy "
    )
    assert train(capsys, "smoke_cpu", *smoke(corpus)) == first
    plain = train(capsys, "smoke_cpu", *smoke(corpus, "algorithms={}"))
    assert plain.split(";")[0] == first.split(";")[0]
    assert plain != first


def test_keep_one_trains_as_no_teacher_does(corpus, capsys):
    taught = train(capsys, "smoke_cpu", *smoke(corpus, "algorithms.attent.keep=1"))
    assert taught == train(capsys, "smoke_cpu", *smoke(corpus, "algorithms={}"))


@pytest.mark.parametrize("kind", ["plain", "attent"])
def test_lm_tiny(corpus, model_folder, capsys, kind):
    sizes = ["hidden_size=24", "intermediate_size=32", "num_hidden_layers=1"]
    small = [f"model.config_overrides.{size}" for size in sizes]
    run = [
        "max_duration=5ba",
        "eval_interval=5ba",
        "train_loader.num_workers=0",
        "train_loader.dataset.window=2",
        "seq_len=32",
    ]
    given = [f"data={corpus}", f"tokenizer_path={model_folder}", "progress_bar=false", *run, *small]
    assert train(capsys, f"lm_tiny_{kind}", *given).startswith(
        "trained 5 batches, 80 samples, 2560 tokens; eval Language"
    )


@pytest.mark.parametrize("kind", ["plain", "attent"])
def test_lm_target(corpus, model_folder, tmp_path, capsys, kind):
    sizes = ["hidden_size=24", "intermediate_size=32", "num_hidden_layers=1"]
    small = [f"model.config_overrides.{size}" for size in sizes]
    run = ["max_duration=5ba", "eval_interval=5ba", "train_loader.num_workers=0", "seq_len=32"]
    run += ["train_loader.dataset.window=2", "progress_bar=false"]
    target = write_corpus(tmp_path)
    given = [f"data={corpus}", f"target={target}", f"tokenizer_path={model_folder}", *run, *small]
    assert train(capsys, f"lm_target_{kind}", *given).startswith(
        "trained 5 batches, 80 samples, 2560 tokens; target Language"
    )
    if kind == "attent":  # what it is evaluated on
        mistake = "algorithms.attent.target.split=eval"
        assert main([str(FOLDER / "lm_target_attent.yaml"), *given, mistake]) != 0
        assert "is the data of the eval loader 'target'" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "batches"), [("plain", 18), ("attent", None)])
def test_lm_finetune_three_epochs_once(corpus, model_folder, tmp_path, capsys, kind, batches):
    cpu = [
        "device=cpu",
        "precision=fp32",
        "fsdp_config=null",
        "train_loader.num_workers=0",
        "eval_loader.num_workers=0",
    ]
    run = [
        "global_train_batch_size=16",
        "train_loader.dataset.window=3",
        "seq_len=32",
        "progress_bar=false",
        "run_name=r",
    ]
    given = [f"model_path={model_folder}", f"data={corpus}", f"save_folder={tmp_path}", *cpu, *run]
    line = train(capsys, f"lm_finetune_{kind}", *given)
    trained = int(re.match(r"trained (\d+) batches", line)[1])
    assert trained == batches if batches else 6 < trained < 18
    assert (tmp_path / "latest-rank0.pt").exists()
    again = [str(FOLDER / f"lm_finetune_{kind}.yaml"), *given, "autoresume=true"]
    assert main(again) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2] == "training is already complete"
    assert told[-1].split(";")[0] == line.split(";")[0]
    assert (
        main(
            [
                *again,
                "autoresume=false",
                f"load_path={tmp_path}/latest-rank0.pt",
                "save_overwrite=true",
            ]
        )
        == 2
    )
    assert (
        "error: max_duration: the checkpoint is already trained for 3ep" in capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["plain", "attent"])
def test_vit(images, tmp_path, capsys, kind):
    sizes = [
        "hidden_size=16",
        "intermediate_size=32",
        "num_hidden_layers=1",
        "num_attention_heads=2",
        "patch_size=8",
    ]
    small = [f"model.config_overrides.{size}" for size in sizes]
    cpu = [
        "device=cpu",
        "precision=fp32",
        "device_train_microbatch_size=4",
        "save_folder=null",
        "autoresume=false",
    ]
    loaders = [
        "train_loader.num_workers=0",
        "eval_loader.num_workers=0",
        "train_loader.dataset.window=2",
        "progress_bar=false",
    ]
    run = [
        "max_duration=2ep",
        "eval_interval=2ep",
        "global_train_batch_size=8",
        "run_name=r",
        "size=16",
        "classes=4",
    ]
    line = train(
        capsys,
        f"vit_{kind}",
        f"data={images}",
        *small,
        *cpu,
        *loaders,
        *run,
        "scheduler.t_warmup=2ba",
    )
    assert "eval CrossEntropy" in line and "eval MulticlassAccuracy" in line and " 0 tokens" in line
    if kind == "plain":
        assert line.startswith("trained 16 batches, 128 samples")


def test_masked_lm(corpus, model_folder, capsys):
    small = "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}"
    model = f"model={{name: hf_masked_lm, architecture: bert, config_overrides: {small}}}"
    masked = [
        "train_loader.name=masked_text",
        "eval_loader.name=masked_text",
        f"tokenizer.path={model_folder}",
        model,
    ]
    line = train(capsys, "smoke_cpu", *smoke(corpus, *masked))
    assert "eval LanguageCrossEntropy" in line and "eval MaskedAccuracy" in line


def failure(capsys, *arguments: str) -> str:
    """Run in this process, expect exit code 2 and nothing but one line on stderr."""
    capsys.readouterr()
    assert main([str(FOLDER / "smoke_cpu.yaml"), *arguments]) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert shown.out == "" and len(lines) == 1 and shown.err.endswith(lines[0] + "\n")
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train_loader.dataset.shufle=true",
            "train_loader.dataset.shufle: unknown key, did you mean 'shuffle'?",
        ),
        ("train_loader.dataset.split=tran", "train_loader.dataset.local: folder '"),
        ("global_train_batch_size=x", "global_train_batch_size: expected int, got str 'x'"),
        ("precision=amp_bf16", "precision: expected fp32 on a CPU, got 'amp_bf16'"),
        ("device_train_microbatch_size=auto", "device_train_microbatch_size: 'auto' needs a GPU"),
        ("tokenizer.path=nowhere", "tokenizer.path: folder 'nowhere' does not exist"),
        ("load_path=nowhere.pt", "load_path: 'nowhere.pt' does not exist"),
        (
            "model.architecture=lama",
            "model.architecture: unknown architecture 'lama', did you mean 'llama'?",
        ),
        (
            "model.config_overrides.hiden_size=3",
            "model.config_overrides.hiden_size: unknown key, did you mean 'hidden_size'?",
        ),
        (
            "model.config_overrides.hidden_size=big",
            "model.config_overrides.hidden_size: expected int, got str 'big'",
        ),
        (
            "model={name: hf_causal_lm, pretrained: nowhere}",
            "model.pretrained: folder 'nowhere' has no config.json",
        ),
        ("algorithms.attent.keep=1.5", "algorithms.attent: keep"),
        (
            "algorithms.attent.score=los",
            "algorithms.attent: score has no 'los', did you mean 'loss'?",
        ),
        ("train_loader.dataset.window=1", "train_loader: window must be"),
        (
            "train_loader.collate.pad=3",
            "train_loader.collate.pad: unknown key, did you mean 'pad_id'?",
        ),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(corpus, capsys, override, expected):
    assert failure(capsys, f"data={corpus}", override).startswith(expected)


def test_what_the_teacher_refuses_when_training_starts_is_one_sentence_too(corpus, capsys):
    assert (
        main([str(FOLDER / "smoke_cpu.yaml"), *smoke(corpus, "algorithms.attent.anneal=5tok")]) == 2
    )
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_of_another_run_is_refused_in_one_sentence(corpus, tmp_path, capsys):
    saved = str(tmp_path / "saved")
    train(capsys, "smoke_cpu", *smoke(corpus, f"save_folder={saved}", "save_interval=3ba"))
    path = next(Path(saved).glob("ep0-ba3-*"))
    other = smoke(corpus, f"load_path={path}", "train_loader.dataset.window=5")
    assert main([str(FOLDER / "smoke_cpu.yaml"), *other]) == 2
    assert (
        "reached under other settings (window: 4 in the checkpoint, 5 now"
        in capsys.readouterr().err
    )


def test_a_folder_without_shards_is_named(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    assert "expected an MDS dataset, but folder" in failure(capsys, f"data={tmp_path}")


def test_check_tells_the_configuration_and_what_would_be_done(corpus, capsys):
    import yaml

    assert main([str(FOLDER / "smoke_cpu.yaml"), f"data={corpus}", *SMALL_LM, "--check"]) == 0
    said = capsys.readouterr().out
    assert yaml.safe_load(said)["train_loader"]["dataset"]["local"] == corpus
    assert "# data: 96 samples in 1 shards" in said and "# AtteNT: " in said


def test_check_names_what_is_not_there(capsys):
    assert main([str(FOLDER / "smoke_cpu.yaml"), "data=nowhere", "--check"]) == 2
    said = capsys.readouterr()
    assert "local: nowhere" in said.out
    assert "train_loader.dataset.local: folder 'nowhere/train' does not exist" in said.err


def launch(ranks: int, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "composer.cli", "-n", str(ranks), "-m", "attent_stream.train"]
    yaml = str(FOLDER / "smoke_cpu.yaml")
    return subprocess.run(
        [*command, yaml, *arguments], env=environment, capture_output=True, text=True, timeout=280
    )


@pytest.mark.slow
def test_two_ranks_train_as_one_does(corpus, capsys):
    given = smoke(
        corpus, "train_loader.num_workers=1", "train_loader.dataset.num_canonical_nodes=1"
    )
    done = launch(2, *given)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("trained ")]
    alone = train(capsys, "smoke_cpu", *given)
    assert line.split(";")[0] == alone.split(";")[0]
    assert abs(cross_entropy(line) - cross_entropy(alone)) < 2e-3


@pytest.mark.slow
def test_a_mistake_ends_all_ranks_with_one_sentence(corpus):
    done = launch(2, f"data={corpus}", "train_loader.dataset.shufle=true")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "train_loader.dataset.shufle: unknown key, did you mean 'shuffle'?" in done.stderr


def test_choices_are_logged_beside_the_checkpoints(corpus, tmp_path, capsys):
    given = [f"save_folder={tmp_path}/{{run_name}}", "run_name=a"]
    train(capsys, "smoke_cpu", *smoke(corpus, *given))
    found = {path.name.split("-")[0] for path in (tmp_path / "a" / "choices").iterdir()}
    assert found == {"choices", "metrics", "run.json", "streams.json"}
    given[1] = "run_name=quiet"
    train(capsys, "smoke_cpu", *smoke(corpus, *given, "choice_log=false"))
    assert not (tmp_path / "quiet" / "choices").exists()
    given[1] = "run_name=plain"
    train(capsys, "smoke_cpu", *smoke(corpus, *given, "algorithms={}"))
    found = {path.name.split("-")[0] for path in (tmp_path / "plain" / "choices").iterdir()}
    assert found == {"metrics", "run.json", "streams.json"}
    given[1] = "run_name=own"
    own = f"algorithms.choice_log.folder={tmp_path}/log"
    train(capsys, "smoke_cpu", *smoke(corpus, *given, own))
    assert (tmp_path / "log" / "run.json").is_file()
    given = [f"save_folder={tmp_path}/shared", "run_name=b"]  # it does not name the run
    train(capsys, "smoke_cpu", *smoke(corpus, *given))
    assert (tmp_path / "shared" / "choices" / "b" / "run.json").is_file()
