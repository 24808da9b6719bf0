"""Every YAML snippet and every command of README and docs/ is one that works."""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from attent_stream import AtteNT, cli
from attent_stream.launch.config import load_config
from attent_stream.report import command as report
from attent_stream.report import inspect as inspect_command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BASE = {
    "model": {"name": "hf_causal_lm", "architecture": "llama"},
    "train_loader": {"name": "text", "dataset": {"local": "corpus"}},
    "optimizer": {"name": "adamw"},
    "max_duration": "8ba",
    "global_train_batch_size": 8,
}
ATTENT = {"keep", "arrange", "remember", "scoring", "target"}  # snippets of its arguments alone
OWN = re.compile(r"my_\w+:")  # of docs/extending.md, which has a test of its own


def blocks(kind):
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(re.findall(rf"```{kind}\n(.*?)```", page.read_text(), re.S))
    ]


def commands(text):
    """The commands of a block as lists of words, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$\(.*?\)(?=\s|$)", "FOLDER", line)
        words = shlex.split(line, comments=True)
        if words:
            yield words


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_yaml_snippet_is_a_run(tmp_path, text):
    given = yaml.safe_load(text)
    if given is None or OWN.search(text):
        return
    if set(given) <= ATTENT:
        given = {"attent": given}
    if set(given) == {"attent"}:
        given = {"algorithms": given}
    if str(given.get("train_loader", {}).get("name", "")).startswith("attent_"):
        loaders = entry_points(group="llmfoundry_dataloaders")
        assert given.pop("train_loader")["name"] in {point.name for point in loaders}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(BASE | given))
    config = load_config(path)
    AtteNT(**config.algorithms.get("attent", {}))


@pytest.mark.parametrize("text", blocks("sh"))
def test_a_command_is_one(tmp_path, text):
    for words in commands(text):
        if "-m" in words and "attent_stream.train" in words:
            words = ["attent-stream", "train", *words[words.index("attent_stream.train") + 1 :]]
        if words[:2] == ["attent-stream", "train"]:
            check_train(tmp_path, [word for word in words[2:] if word != "--check"])
        elif words[0] == "attent-stream":
            check_command(words[1], words[2:])
        elif words[:1] == ["python"]:
            check_tool(words[1:])
        elif words[:2] == ["llmfoundry", "train"]:
            check_foundry(words[2], words[3:])
        else:
            known = {"make", "pip", "uv", "printf", "export", "mpirun"}
            assert words[0] in known or "=" in words[0], words


def check_train(folder, arguments):
    path, *overrides = arguments
    if path == "run.yaml":  # the reader's own
        own = {"algorithms": {"attent": {}}, "save_folder": "checkpoints"}
        (folder / path).write_text(yaml.safe_dump(BASE | own))
        path = folder / path
    else:
        path = ROOT / path
    load_config(path, [one for one in overrides if one not in ("key=value", "...")])


def check_foundry(path, overrides):
    """All that llm-foundry's YAML leaves open is given."""
    given = OmegaConf.merge(OmegaConf.load(ROOT / path), OmegaConf.from_dotlist(overrides))
    assert not OmegaConf.missing_keys(given)
    OmegaConf.to_container(given, resolve=True, throw_on_missing=True)


def check_command(name, arguments):
    parsers = {"report": report.parser, "inspect": inspect_command.parser}
    if name in parsers:
        parsers[name]().parse_args(arguments)
    elif name == "corpus":
        cli.parser().parse_args([name, *arguments])
    else:
        assert name in cli.FORWARDED


def check_tool(arguments):
    if arguments[0] in ("-c", "-m"):
        return
    source = (ROOT / arguments[0]).read_text()
    for option in arguments[1:]:
        assert not option.startswith("--") or f'"{option}"' in source, option


def run(folder, text):
    """Run a block as a reader would, in a folder with ``yamls``."""
    (folder / "yamls").symlink_to(ROOT / "yamls")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    "page, mark, runs", [("README.md", "smoke_cpu.yaml", 3), ("docs/recipes.md", "lm_tiny", 2)]
)
def test_the_commands_run(tmp_path, page, mark, runs):
    texts = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.S)
    block = next(text for text in texts if mark in text)
    lines = [line for line in block.splitlines() if not line.startswith("srun")]
    said = run(tmp_path, "\n".join(lines))
    assert said.count("trained ") >= runs, said
