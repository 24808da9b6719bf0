"""The demo: its corpus, its clock, and all of it in a small way."""

import json
import os
import signal
import subprocess
import sys

import pytest

from attent_stream import AtteNT
from attent_stream.corpus import CorpusError, Manifest
from attent_stream.demo.command import main
from attent_stream.demo.corpus import HELD_OUT, make_corpus, python_sources, standard_library
from attent_stream.demo.settings import FULL, QUICK, DemoSettings


def write_sources(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(f"def function_{number}_{i}():\n    return {i}\n" for i in range(60)), "utf-8"
        )
    return root


def test_python_sources(tmp_path):
    good = ["a.py", "json/b.py", "json/deep/c.py", "testing.py"]
    bad = [
        "test/t.py",
        "json/tests/t.py",
        "site-packages/x/y.py",
        "__pycache__/p.py",
        "_sysconfigdata__linux.py",
        "d.txt",
    ]
    root = write_sources(tmp_path, [*good, *bad])
    assert [path.relative_to(root).as_posix() for path in python_sources(root)] == good


def test_no_python_sources(tmp_path):
    with pytest.raises(
        CorpusError, match="lacks its standard library's sources: no .py file under"
    ):
        python_sources(tmp_path)


def test_this_python_has_sources():
    files = python_sources(standard_library())
    assert len(files) > 200 and sum(path.stat().st_size for path in files) > 4e6


def test_corpus_is_made_once(tmp_path):
    files = python_sources(write_sources(tmp_path / "lib", [f"m{i}.py" for i in range(30)]))
    out = tmp_path / "demo" / "corpus"
    left_over = tmp_path / "demo" / "corpus.partial-1-abc"
    left_over.mkdir(parents=True)
    settings = {"vocab_size": 300, "seq_len": 32, "held_out": 0.2}
    manifest, there = make_corpus(files, out, **settings)
    assert not there and not left_over.exists()
    assert manifest.splits == ("train", HELD_OUT) and manifest.total("documents") == 30
    assert make_corpus(files, out, **settings) == (Manifest.load(out), True)
    for changed in ({**settings, "seq_len": 16}, {**settings, "vocab_size": 400}):
        assert make_corpus(files, out, **changed)[1] is False
    assert make_corpus(files[1:], out, **settings)[1] is False
    (out / "manifest.json").write_text("{", "utf-8")
    assert make_corpus(files, out, **settings)[1] is False


def test_settings():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        DemoSettings(steps=0)
    with pytest.raises(ValueError, match="width must be a multiple of 32, got 48"):
        DemoSettings(width=48)
    half = FULL.with_steps(FULL.steps // 2)
    assert (half.steps, half.eval_every, half.warmup) == (
        FULL.steps // 2,
        FULL.eval_every // 2,
        FULL.warmup // 2,
    )
    assert FULL.steps % FULL.eval_every == 0 == QUICK.steps % QUICK.eval_every


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


def test_arms_differ_in_the_algorithm_alone():
    from attent_stream.demo.arm import teacher

    assert teacher("uniform", FULL) is None
    random, published = (teacher(arm, FULL).settings for arm in ("random", "published"))
    assert (random.select, published.select) == ("random", FULL.select)
    assert random.keep == published.keep is not None
    assert teacher("taught", FULL).settings == AtteNT().settings


def test_evaluations_are_not_training_time(monkeypatch):
    from types import SimpleNamespace

    from torchmetrics import MeanMetric

    from attent_stream.base import training_time
    from attent_stream.demo.arm import Recorder

    now = [100.0]
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: now[0])
    metric = MeanMetric()
    metric.update(2.5)
    state = SimpleNamespace(
        eval_metrics={"eval": {"LanguageCrossEntropy": metric}},
        timestamp=SimpleNamespace(batch=1, token=2),
    )
    recorder = Recorder(None, None)

    def evaluate(seconds):
        recorder.eval_before_all(state, None)
        now[0] += seconds
        recorder.eval_end(state, None)
        now[0] += 1
        recorder.eval_after_all(state, None)

    evaluate(50)  # before training
    now[0] += 7
    recorder.fit_start(state, None)
    now[0] += 3
    evaluate(50)
    now[0] += 4
    evaluate(50)
    assert [(p.seconds, p.loss) for p in recorder.points] == [(0, 2.5), (3, 2.5), (7, 2.5)]


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
