"""The demo's corpus."""

import pytest

from attent_stream.corpus import CorpusError, Manifest
from attent_stream.demo.corpus import HELD_OUT, make_corpus, python_sources, standard_library


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
