"""Nothing that reads as a corpus is left by a run that did not end, and nothing is replaced
unasked.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from corpus_files import documents, write_jsonl

from attent_stream.corpus import (
    CorpusError,
    Manifest,
    TextCorpusSettings,
    sources_from,
    write_text_corpus,
)

KILLED = """
import os, signal, sys
from streaming import MDSWriter
from attent_stream.corpus import TextCorpusSettings, sources_from, write_text_corpus

flush, count = MDSWriter.flush_shard, 0

def flush_or_die(self):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(self)

if __name__ == "__main__":
    MDSWriter.flush_shard = flush_or_die
    source, out = sys.argv[1:]
    settings = TextCorpusSettings(sources=sources_from([f"a={source}"]), out=out, vocab_size=300,
                                  seq_len=32, shard_size="5kb", workers=2)
    write_text_corpus(settings)
"""


def settings_for(tmp_path, **changes):
    path = tmp_path / "a.jsonl"
    if not path.exists():
        write_jsonl(path, documents(150))
    settings = TextCorpusSettings(
        sources=sources_from([f"a={path}"]),
        out=str(tmp_path / "out"),
        vocab_size=300,
        seq_len=32,
        progress=False,
    )
    return replace(settings, **changes)


def test_killed_halfway_leaves_no_corpus(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", documents(400))
    out = tmp_path / "out"
    # The pipes stay open while a worker lives, so that an orphan would run into the timeout.
    run = subprocess.run(
        [sys.executable, "-c", KILLED, source, out], capture_output=True, timeout=120
    )
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert not out.exists()
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p != source]
    assert any(p.name.startswith("shard.") for p in left)
    assert not any(p.name in ("index.json", "manifest.json") for p in left)


def test_a_worker_that_dies_is_an_error(tmp_path, monkeypatch):
    parent = os.getpid()

    def die(*_):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("attent_stream.corpus.encode.parse_record", die)
    settings = settings_for(
        tmp_path, vocab_size=None, tokenizer=str(small_tokenizer(tmp_path)), workers=2
    )
    with pytest.raises(CorpusError, match="a worker process died"):
        write_text_corpus(settings)
    assert not any(p.name.startswith("out") for p in tmp_path.iterdir())


def small_tokenizer(tmp_path):
    from attent_stream.corpus.tokenizer import train_tokenizer

    train_tokenizer(documents(20), 270).save(tmp_path / "small")
    return tmp_path / "small"


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    settings = settings_for(tmp_path)

    def fail(*_):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr("attent_stream.corpus.output.ShardWriter.finish", fail)
    with pytest.raises(RuntimeError, match="disk on fire"):
        write_text_corpus(settings)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_overwrite_is_refused_then_done(tmp_path):
    settings = settings_for(tmp_path)
    write_text_corpus(settings)
    with pytest.raises(
        CorpusError, match="out is not empty; --overwrite replaces the corpus there"
    ):
        write_text_corpus(replace(settings, seq_len=16))
    assert Manifest.load(tmp_path / "out").seq_len == 32
    write_text_corpus(replace(settings, seq_len=16, overwrite=True))
    assert Manifest.load(tmp_path / "out").seq_len == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_only_a_corpus_is_ever_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("the only copy")
    with pytest.raises(CorpusError, match=r"holds more than a corpus \(thesis.tex\)"):
        write_text_corpus(settings_for(tmp_path, overwrite=True))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "the only copy"
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="is a file; give a folder"):
        write_text_corpus(settings_for(tmp_path, out=str(tmp_path / "file")))


def test_failed_overwrite_keeps_the_old_corpus(tmp_path):
    settings = settings_for(tmp_path)
    before = write_text_corpus(settings)
    with pytest.raises(CorpusError, match="no tokenizer at"):
        write_text_corpus(
            replace(settings, overwrite=True, vocab_size=None, tokenizer=str(tmp_path / "none"))
        )
    assert Manifest.load(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_an_empty_folder_may_be_there_and_parents_may_not(tmp_path):
    (tmp_path / "out").mkdir()
    settings = settings_for(tmp_path)
    write_text_corpus(settings)
    write_text_corpus(replace(settings, out=str(tmp_path / "new" / "deep")))
    assert Manifest.load(tmp_path / "new" / "deep") == Manifest.load(tmp_path / "out")


def test_unknown_store(tmp_path):
    with pytest.raises(
        CorpusError, match="cannot write to ftp://; give a folder or one of s3://, gs://"
    ):
        write_text_corpus(settings_for(tmp_path, out="ftp://host/x"))
