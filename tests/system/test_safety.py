"""What comes from a store, a checkpoint or the environment is data: never run, never believed
beyond its bounds, never shown.
"""

import ast
import json
import logging
import os
import pickle
import pydoc
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import write_ids, write_tokens
from fits import LENGTH, VOCAB, fit, make_loader
from streaming import JSONWriter, MDSWriter, Stream
from streaming.base.world import World

from attent_stream import AtteNT, TeachingDataset
from attent_stream.base.redaction import masked_record, print_masked
from attent_stream.cli import main as cli
from attent_stream.launch.config import ConfigError, load_config
from attent_stream.memory.ledger import SampleLedger
from attent_stream.order.streaming_order import shared_rows
from attent_stream.store.index_check import CheckedDataset
from attent_stream.teach.board import Board
from attent_stream.teach.position import Position
from attent_stream.train import main as train

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_process_group():
    """Composer leaves torch.distributed initialised, which is nothing for the next test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# Checkpoints and the board


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_taught_checkpoint_loads_as_tensors_and_numbers(tmp_path):
    """Composer's own file, in the middle of a window, with a ledger, read by torch without
    unpickling any code.
    """
    folder = write_tokens(tmp_path / "tokens", 64, length=LENGTH, vocab=VOCAB)
    settings = {
        "select": "hard",
        "keep": 0.5,
        "score": "loss",
        "interval": "10ep",
        "remember": "always",
    }
    saving = {
        "save_folder": str(tmp_path / "saved"),
        "save_interval": "3ba",
        "save_overwrite": True,
    }
    fit(
        make_loader(folder),
        [],
        max_duration="3ba",
        **{**saving, "save_folder": str(tmp_path / "plain")},
    )
    fit(make_loader(folder), [AtteNT(**settings)], max_duration="7ba", **saving)
    paths = [str(tmp_path / name) for name in ("plain/ep0-ba3-rank0.pt", "saved/ep0-ba6-rank0.pt")]
    # Composer's own, of the time and the random number states: no more than in a plain run's
    # checkpoint.
    plain, taught = (
        set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) for path in paths
    )
    assert taught == plain and "datetime.timedelta" in plain
    composers = [pydoc.locate(name) for name in plain] + [type(np.dtype(np.uint32))]
    with torch.serialization.safe_globals(composers):
        state = torch.load(paths[1], weights_only=True)["state"]
    numbers = (bool, int, float, str, type(None), torch.Tensor)

    def leaves(value):
        inner = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list | tuple)
            else None
        )
        return [value] if inner is None else [leaf for part in inner for leaf in leaves(part)]

    ours = dict(state["algorithms"])["AtteNT"]
    data = state["dataset_state"]["train"]
    for part in (ours, data):
        assert all(isinstance(leaf, numbers) for leaf in leaves(part))
    fresh = AtteNT(**settings)
    fresh.load_state_dict(ours)
    assert fresh.state_dict()["counts"] == ours["counts"] and ours["counts"]["lessons"] > 0
    ledger = SampleLedger(len(ours["ledger"]["codes"]))
    ledger.load_state_dict(ours["ledger"])
    assert (
        torch.equal(ledger.state_dict()["codes"], ours["ledger"]["codes"])
        and ours["ledger"]["codes"].any()
    )
    position = Position.load(data["attent"])
    assert position.lesson > 0 and json.loads(position.dump()) == json.loads(data["attent"])


# An index.json


def change_index(folder: str, change) -> None:
    path = Path(folder) / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def set_shard(*path_and_value):
    *path, last, value = path_and_value

    def change(index):
        part = index["shards"][0]
        for name in path:
            part = part[name]
        part[last] = value

    return change


BAD_INDEX = [
    (
        set_shard("column_encodings", 1, "pkl"),
        "'id' contains an unsafe type, because reading 'pkl' runs",
    ),
    (
        set_shard("column_encodings", 1, "pkl:"),
        "'id' contains an unsafe type, because reading 'pkl:' runs",
    ),
    (set_shard("column_encodings", 1, "dill"), "column 'id' has the unknown encoding 'dill'"),
    (set_shard("column_encodings", 1, "x:y"), "column 'id' has the unknown encoding 'x:y'"),
    (set_shard("column_encodings", ["int"]), "as many column names as encodings and sizes"),
    (
        set_shard("column_sizes", 0, -8),
        "expected a size of column 'difficulty' under 4294967296 bytes, got -8",
    ),
    (set_shard("raw_data", "basename", "../victim"), "inside the stream's folder, got '../victim'"),
    (
        set_shard("raw_data", "basename", "/etc/victim"),
        "inside the stream's folder, got '/etc/victim'",
    ),
    (set_shard("raw_data", "basename", "a/../../victim"), "inside the stream's folder"),
    (set_shard("raw_data", "basename", "a\\victim"), "inside the stream's folder"),
    (set_shard("raw_data", "basename", "x" * 300), "inside the stream's folder, got 'xxxx"),
    (set_shard("raw_data", "basename", "index.json"), "inside the stream's folder"),
    (set_shard("raw_data", "basename", ""), "inside the stream's folder"),
    (set_shard("raw_data", "basename", 7), "inside the stream's folder, got 7"),
    (set_shard("raw_data", "bytes", -1), "to have 1 to 4294967296 bytes, got -1"),
    (
        set_shard("raw_data", "bytes", 1 << 60),
        "to have 1 to 4294967296 bytes, got 1152921504606846976",
    ),
    (set_shard("raw_data", "bytes", 1e3), "to have 1 to 4294967296 bytes, got 1000.0"),
    (set_shard("raw_data", None), "expected a raw file, got none"),
    (set_shard("samples", 10**18), "got 1000000000000000000"),
    (set_shard("samples", -3), "got -3"),
    (set_shard("samples", "8"), "got '8'"),
    (set_shard("format", "exe"), "failed with KeyError: 'exe'"),
    (set_shard("extra", 1), "failed with TypeError"),
    (set_shard("version", 3), "failed with AssertionError"),
    (lambda index: index.pop("shards"), "failed with KeyError: 'shards'"),
]


def test_an_index_that_cannot_be_trusted_is_refused_by_name(tmp_path):
    good, bad = write_ids(tmp_path / "good", 8), write_ids(tmp_path / "bad", 8)
    path = Path(bad, "index.json")
    before = path.read_text()
    for change, message in BAD_INDEX:
        path.write_text(before)
        change_index(bad, change)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            TeachingDataset(streams=[Stream(local=good), Stream(local=bad)], batch_size=2)
        assert str(caught.value).startswith(f"stream 1 ({bad}/)") and "\n" not in str(caught.value)


def test_pickle_runs_only_when_the_user_says_so(tmp_path):
    """Nothing is unpickled by a refusal; the same folders serve right after it; a stream of stock
    Streaming stays as it is.
    """
    with MDSWriter(out=str(tmp_path / "remote"), columns={"x": "pkl"}) as writer:
        writer.write({"x": Bomb(tmp_path / "trace")})
    places = {"remote": str(tmp_path / "remote"), "local": str(tmp_path / "local")}
    for kind in (TeachingDataset, CheckedDataset):
        with pytest.raises(
            ValueError,
            match="'x' contains an unsafe type, .* 'pkl' runs .* pass allow_unsafe_types=True",
        ):
            kind(**places, batch_size=1)
    assert not (tmp_path / "trace").exists()
    dataset = TeachingDataset(**places, batch_size=1, allow_unsafe_types=True)
    dataset[0]["x"].close()
    assert (tmp_path / "trace").exists()


def test_a_shard_name_cannot_reach_out_of_the_cache(tmp_path):
    """Stock Streaming would read (and, when it evicts, remove) the file; the refusal comes before
    anything is touched.
    """
    remote = write_ids(tmp_path / "remote", 8)
    (tmp_path / "victim").write_text("mine")
    change_index(remote, set_shard("raw_data", "basename", "../victim"))
    with pytest.raises(ValueError, match="inside the stream's folder"):
        TeachingDataset(remote=remote, local=str(tmp_path / "local"), batch_size=2)
    assert (tmp_path / "victim").read_text() == "mine"
    assert [
        str(path.relative_to(tmp_path / "local"))
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    ] == ["index.json"]


def test_good_indices_of_every_kind_are_taken(tmp_path):
    with MDSWriter(
        out=str(tmp_path / "zip"), columns={"x": "int"}, compression="zstd:3", hashes=["sha1"]
    ) as writer:
        for number in range(5):
            writer.write({"x": number})
    with JSONWriter(out=str(tmp_path / "json"), columns={"x": "int"}, newline="\n") as writer:
        for number in range(5):
            writer.write({"x": number})
    streams = [
        Stream(remote=str(tmp_path / k), local=str(tmp_path / f"{k}-local"))
        for k in ("zip", "json")
    ]
    dataset = TeachingDataset(streams=streams, batch_size=1)
    assert [int(dataset[i]["x"]) for i in range(10)] == [*range(5), *range(5)]
    assert [s.local for s in pickle.loads(pickle.dumps(dataset.streams))] == [
        s.local for s in streams
    ]


# Secrets

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


RUN = """
variables: {note: "${oc.env:AWS_SECRET_ACCESS_KEY}"}
model:
  name: hf_causal_lm
  architecture: gpt2
  config_overrides: {vocab_size: 61, n_positions: 24, n_embd: 16, n_layer: 1, n_head: 2}
train_loader:
  name: text
  num_workers: 0
  dataset: {local: DATA, window: 2, gap: 0}
optimizer: {name: adamw, lr: 1.0e-3}
algorithms: {attent: {keep: 0.5}}
loggers:
  file_logger: {filename: LOG, remote_file_name: null}
  in_memory: {}
max_duration: 2ba
global_train_batch_size: 4
device: cpu
progress_bar: false
log_to_console: true
python_log_level: debug
"""


def test_no_planted_secret_is_shown_by_the_commands(monkeypatch, capfd, caplog, tmp_path):
    """A run that works, one that is only checked, and mistakes: nothing printed, logged or written
    has a secret in it.
    """
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("logging._logRecordFactory", masked_record)  # as the commands do
    data = write_tokens(tmp_path / "tokens", 32, length=LENGTH, vocab=VOCAB)
    run = tmp_path / "run.yaml"
    run.write_text(RUN.replace("DATA", data).replace("LOG", str(tmp_path / "log.txt")))
    wandb = "loggers.wandb={project: p, init_kwargs: {api_key: hush-wandb}}"
    url = "https://me:hush-url@host/x"
    assert train([str(run)]) == 0
    assert (
        train([str(run), "--check", wandb, f"train_loader.dataset={{remote: '{url}', local: /x}}"])
        == 2  # nothing is there
    )
    shown = capfd.readouterr()
    assert "api_key: '***'" in shown.out and "https://***@host/x" in shown.out
    mistakes = [
        "variables.api_key=[hush-list",
        f"max_duration={url}",
        f"train_loader.dataset={{local: {url}}}",
        "loggers.slack={slack_logging_api_key: {a: hush-dict}, channel_id: c}",
        "loggers.mlflow={password: hush-unknown}",
        "train_loader.dataset={remote: 'sftp://me:hush-sftp@127.0.0.1:1/x', "
        f"local: {tmp_path}/sftp, download_retry: 1}}",
        f"model.pretrained={SECRET}",
    ]
    for mistake in mistakes:
        try:
            assert train([str(run), mistake]) == 2, mistake
        except Exception as error:  # of another library: on the command line the hook prints it
            print_masked(type(error), error, error.__traceback__)
    assert (
        cli(
            [
                "corpus",
                "text",
                str(tmp_path),
                "--train-tokenizer",
                "--out",
                f"ftp://me:hush-out@{SECRET}",
            ]
        )
        == 2
    )
    shown += capfd.readouterr()
    logging.getLogger("some.library").error("no %s", SECRET, exc_info=OSError(url))
    everything = "\n".join([*shown, caplog.text, (tmp_path / "log.txt").read_text()])
    assert "no ***\nOSError: https://***@host/x" in everything
    assert "note: '***'" in everything
    assert "hush" not in everything and SECRET not in everything


def test_a_checkpoint_that_would_run_code_is_refused(capfd, tmp_path):
    """The train command goes on from Composer's own checkpoint; with an object in it, only when the
    user says so.
    """
    data = write_tokens(tmp_path / "tokens", 48, length=LENGTH, vocab=VOCAB)
    run = tmp_path / "run.yaml"
    run.write_text(
        RUN.replace("DATA", data)
        .replace("LOG", str(tmp_path / "log.txt"))
        .replace("${oc.env:AWS_SECRET_ACCESS_KEY}", "x")
    )
    saving = [
        f"save_folder={tmp_path}/saved",
        "save_interval=2ba",
        "scheduler={name: cosine_with_warmup, t_warmup: 1ba}",
    ]
    assert train([str(run), *saving]) == 0
    path = tmp_path / "saved" / "ep0-ba2-rank0.pt"
    on = [
        str(run),
        saving[2],
        "max_duration=3ba",
        "loggers={}",
        "callbacks={lr_monitor: {}}",
        f"load_path={path}",
    ]
    assert train(on) == 0
    assert "trained 3 batches" in capfd.readouterr().out
    state = torch.load(path, weights_only=False)
    state["state"]["callbacks"] = {"LRMonitor": Bomb(tmp_path / "trace")}
    torch.save(state, path)
    assert train(on) == 2
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"more than tensors and numbers \(.*open\).*set load_unsafe_types to true", told
    )
    assert not (tmp_path / "trace").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert train([*on, "load_unsafe_types=true"]) == 0
    assert (tmp_path / "trace").exists()


# Files, memory, YAML


def test_yaml_makes_no_objects(tmp_path):
    for tag in ("!!python/object/apply:os.system ['touch trace']", "!!python/name:os.system ''"):
        (tmp_path / "run.yaml").write_text(f"max_duration: {tag}\n")
        with pytest.raises(ConfigError, match="not a readable YAML file"):
            load_config(tmp_path / "run.yaml")


def modes(folder: str = "/dev/shm") -> dict[str, int]:
    return {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in Path(folder).iterdir()
        if path.stat().st_uid == os.getuid()
    }


@pytest.mark.alone
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="shared memory has no folder here")
def test_shared_memory_and_temporary_files_are_private(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    os.mkdir(tmp_path / "temp")
    remote = write_ids(tmp_path / "remote", 32)
    before = set(modes())
    old = os.umask(0)
    try:
        dataset = TeachingDataset(
            remote=remote, batch_size=4, shuffle=True, num_canonical_nodes=1, shuffle_block_size=16
        )
        board = Board(steps=4, batch_size=2, ahead=3)
        seen = {}

        def barrier():
            seen.update({name: mode for name, mode in modes().items() if name not in before})

        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.barrier", barrier)
        rows = shared_rows(dataset, World(1, 1, 1, 0), True, 0)
    finally:
        os.umask(old)
    assert sorted(rows.reshape(-1)) == [*range(32)]
    assert any(name.endswith("_attent_order") for name in seen) and len(seen) > 5
    assert {name: mode for name, mode in seen.items() if mode & 0o077} == {}
    assert not any(name.endswith("_attent_order") for name in modes())
    memory = [os.fstat(int(fd)) for fd in os.listdir("/proc/self/fd") if is_shared(fd)]
    assert memory and not any(status.st_mode & 0o077 for status in memory) and board.nbytes
    cache = Path(dataset.streams[0].local)
    assert tmp_path / "temp" in cache.parents or cache.parent == tmp_path / "temp"
    top = tmp_path / "temp" / cache.relative_to(tmp_path / "temp").parts[0]
    assert stat.S_IMODE(top.stat().st_mode) == 0o700


def is_shared(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/shm/torch_")
    except OSError:
        return False


def test_nothing_of_ours_unpickles():
    """The package's own source calls no loader of pickles and evaluates no text."""
    unsafe = {
        "pickle.load",
        "pickle.loads",
        "torch.load",
        "np.load",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "eval",
        "exec",
    }
    for path in (ROOT / "attent_stream").rglob("*.py"):
        calls = [
            node.func
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        assert not unsafe & {ast.unparse(call) for call in calls}, path


@pytest.mark.slow
def test_the_command_line_masks_the_errors_of_other_libraries(tmp_path):
    data = write_tokens(tmp_path / "tokens", 32, length=LENGTH, vocab=VOCAB)
    text = RUN.replace("DATA", data).replace("LOG", str(tmp_path / "log.txt"))
    (tmp_path / "run.yaml").write_text(text + "load_path: sftp://me:hush@127.0.0.1:1/x\n")
    command = [sys.executable, "-m", "attent_stream.train", str(tmp_path / "run.yaml")]
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": SECRET, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=250, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "hush" not in done.stdout + done.stderr and SECRET not in done.stdout + done.stderr
