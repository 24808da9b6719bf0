"""The demo's command, and a small run of it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from attent_stream.demo.command import main
from attent_stream.demo.settings import QUICK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--arms", "uniform,tought"],
            "expected some of uniform, random, published, taught, got 'tought'",
        ),
        (["--steps", "none"], "expected a whole number from 8, got 'none'"),
        (["--steps", "3"], "expected a whole number from 8, got '3'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def command(*arguments):
    return [sys.executable, "-m", "attent_stream", "demo", "--quick", *map(str, arguments)]


def test_end_to_end(tmp_path):
    out = tmp_path / "demo"
    (out / "cache" / "taught-old").mkdir(parents=True)  # as a killed run leaves it
    (out / "corpus.partial-1-abc").mkdir()
    (out / "results.jsonl").write_text("half a li", "utf-8")
    arms = ["uniform", "random", "published", "taught"]
    done = subprocess.run(
        command("--out", out, "--arms", ",".join(arms)), capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("arm "))
    assert [line.split()[0] for line in lines[heading + 2 : heading + 6]] == arms
    assert lines[-1] == f"Picture: {out / 'picture.png'}"
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == ["corpus", "picture.png", "results.jsonl"]

    records = {
        r["arm"]: r
        for r in map(json.loads, (out / "results.jsonl").read_text("utf-8").splitlines())
    }
    assert list(records) == arms
    tokens = QUICK.steps * QUICK.batch_size * QUICK.seq_len
    for record in records.values():
        curve = record["curve"]
        assert [p["batch"] for p in curve] == list(range(0, QUICK.steps + 1, QUICK.eval_every))
        assert record["tokens_trained"] == tokens == curve[-1]["tokens"]
        assert curve[0]["loss"] == records["uniform"]["curve"][0]["loss"]  # the same weights
        assert record["held_out_loss"] < curve[0]["loss"]
        assert curve[0]["seconds"] == 0 < record["seconds"]
    candidates = {arm: record["candidates_scored"] for arm, record in records.items()}
    assert candidates["uniform"] == candidates["random"] == 0 < candidates["published"]
    assert (
        0 < records["published"]["teaching_share"] < 1 and records["uniform"]["teaching_share"] == 0
    )
    assert records["taught"]["held_out_loss"] < records["uniform"]["held_out_loss"]
    medians = [(w["kept"][1], w["dropped"][1]) for w in records["published"]["windows"]]
    assert medians and all(kept > dropped for kept, dropped in medians)


@pytest.mark.slow
def test_interrupted_is_one_line(tmp_path):
    run = subprocess.Popen(
        command("--out", tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not run.stdout.readline().startswith("Arms:"):
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (130, "attent-stream: interrupted\n")
    again = subprocess.run(command("--out", tmp_path), capture_output=True, text=True, timeout=280)
    assert again.returncode == 0, again.stderr
    assert again.stderr == "" and "made before" in again.stdout
