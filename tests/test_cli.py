"""The command line: what it prints, and one sentence for every mistake."""

import subprocess
import sys
import types

import pytest
from corpus_files import documents, write_jsonl

from attent_stream.cli import main
from attent_stream.corpus import Manifest


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_text_corpus(tmp_path, capsys):
    a = write_jsonl(tmp_path / "a.jsonl.zst", ["", *documents(100)], key="body")
    b = write_jsonl(tmp_path / "b.jsonl", documents(60), key="body")
    status, out, err = run(
        capsys,
        "corpus",
        "text",
        a,
        "--stream",
        f"more={b}",
        "--out",
        tmp_path / "out",
        "--train-tokenizer",
        "--vocab-size",
        300,
        "--seq-len",
        32,
        "--split",
        "valid=0.2",
        "--text-key",
        "body",
        "--workers",
        2,
        "--hash",
        "xxh64",
        "--hash",
        "sha1",
        "--compression",
        "zstd:7",
        "--shard-size",
        "20kb",
    )
    manifest = Manifest.load(tmp_path / "out")
    assert status == 0 and out.splitlines()[-1] == f"{tmp_path / 'out'}: complete"
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == [p.path for p in manifest.parts]
    assert [p.path for p in manifest.parts] == ["a/train", "a/valid", "more/train", "more/valid"]
    assert (
        manifest.settings["hashes"] == ["sha1", "xxh64"]
        and manifest.settings["compression"] == "zstd:7"
    )
    assert err == f"left out of a: 1 x empty text, e.g. {a}:1\n"


def test_image_corpus(tmp_path, capsys):
    from image_files import fill

    fill(tmp_path / "in", ["cat", "dog"], 3)
    status, out, err = run(
        capsys, "corpus", "images", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1
    )
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()][:2] == [["part", "samples"], ["train", "6"]]


TRAIN = "--train-tokenizer"
MISTAKES = [
    (["{}/none.jsonl", TRAIN], "stream 'none': no such file or folder: {}/none.jsonl"),
    ([TRAIN], "at least one source is needed, got none"),
    (["{}/empty", TRAIN], "stream 'empty': no file ending in .jsonl, .ndjson, .txt, .parquet "),
    (
        ["{}/a.py", TRAIN],
        "stream 'a.py': {}/a.py is none of .jsonl, .ndjson, .txt, .parquet; read it as text with "
        "--ext",
    ),
    (["{}/a.jsonl", "--tokenizer", "{}/none"], "no tokenizer at {}/none: "),
    (["{}/a.jsonl", "--tokenizer", "{}/empty"], "no tokenizer.json in {}/empty; "),
    (["{}/a.jsonl", "--tokenizer", "{}/a.py"], "{}/a.py is not a tokenizer: "),
    (
        ["{}/a.jsonl", "--tokenizer", "{}/none", "--vocab-size", "5"],
        "--vocab-size needs --train-tokenizer",
    ),
    (
        ["{}/a.jsonl", TRAIN, "--vocab-size", "5"],
        "vocab_size must be a whole number from 257, got 5",
    ),
    (["{}/a.jsonl", TRAIN, "--seq-len", "100000"], "split 'train' has "),
    (
        ["{}/a.jsonl", TRAIN, "--text-key", "x"],
        "stream 'a': 20 of 20 records are bad, more than half",
    ),
    (["{}/zero.jsonl", TRAIN], "stream 'zero' holds no record"),
    (
        ["{}/a.jsonl", TRAIN, "--eos-token", "x"],
        "eos_token: expected <|endoftext|> for a trained tokenizer, got ",
    ),
    (["{}/a.jsonl", TRAIN, "--compression", "x"], "compression: expected one of br, bz2, "),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_one_sentence(tmp_path, capsys, arguments, message):
    write_jsonl(tmp_path / "a.jsonl", documents(20))
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "zero.jsonl").write_text("\n\n")
    (tmp_path / "empty").mkdir()
    arguments = [a.format(tmp_path) for a in arguments]
    status, out, err = run(
        capsys, "corpus", "text", *arguments, "--out", tmp_path / "out", "--workers", 1
    )
    assert (status, out) == (2, "")
    assert err.startswith("attent-stream: error: " + message.format(tmp_path)), err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_an_end_of_text_token(tmp_path, capsys):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "t.json"))
    a = write_jsonl(tmp_path / "a.jsonl", ["aaaa"] * 20)
    given = (
        "corpus",
        "text",
        a,
        "--tokenizer",
        tmp_path / "t.json",
        "--out",
        tmp_path / "out",
        "--workers",
        1,
    )
    status, _, err = run(capsys, *given)
    assert status == 2 and "names no end-of-text token; give one with --eos-token" in err
    status, _, err = run(capsys, *given, "--eos-token", "b")
    assert status == 2 and "the end-of-text token 'b' is not in the tokenizer" in err
    status, _, err = run(capsys, *given, "--eos-token", "a", "--seq-len", 8)
    assert status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["corpus"],
        ["corpus", "video"],
        ["corpus", "text", "a", "--out", "b"],
        ["corpus", "text", "a", "--train-tokenizer"],
        ["corpus", "text", "a", "--out", "b", "--train-tokenizer", "--split", "valid"],
        ["corpus", "text", "a", "--out", "b", "--train-tokenizer", "--tokenizer", "c"],
    ],
)
def test_arguments_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: attent-stream" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "place"), [("train", "train"), ("demo", "demo.command")])
def test_other_commands_get_all_that_follows(monkeypatch, name, place):
    got = []
    module = types.ModuleType(f"attent_stream.{place}")
    module.main = lambda arguments: got.append(arguments) or 7
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main([name, "x.yaml", "--help", "a.b=c"]) == 7
    assert got == [["x.yaml", "--help", "a.b=c"]]


def test_help_imports_nothing_heavy():
    code = (
        "import sys, attent_stream.cli as c\ntry:\n c.main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += (
        "print(sorted({'torch', 'streaming', 'composer', 'transformers', 'numpy'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "corpus" in done.stdout and "train" in done.stdout and "demo" in done.stdout


def test_module_runs(tmp_path):
    command = [
        sys.executable,
        "-m",
        "attent_stream",
        "corpus",
        "text",
        tmp_path / "x",
        "--train-tokenizer",
        "--out",
        "o",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(
        "attent-stream: error: stream 'x': no such file"
    )
