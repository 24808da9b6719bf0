"""Sources, their names and their files."""

import pytest

from attent_stream.corpus import CorpusError, Source, sources_from
from attent_stream.corpus.sources import find_files, kind_of


@pytest.mark.parametrize(
    ("name", "extensions", "kind"),
    [
        ("a.jsonl", (), "jsonl"),
        ("a.jsonl.gz", (), "jsonl"),
        ("a.b.txt.zst", (), "text"),
        ("a.parquet", (), "parquet"),
        ("a.py", (), None),
        ("a.py", (".py",), "text"),
        ("a.txt", (".py",), None),
        ("a.jsonl", (".py", ".jsonl"), "jsonl"),
        (".jsonl", (), None),
    ],
)
def test_kind_of(name, extensions, kind):
    assert kind_of(name, extensions) == kind


def test_sources(tmp_path):
    (tmp_path / "x=y.txt").write_text("")
    got = sources_from(["books=a", "data/my books.jsonl.zst", "books=b", str(tmp_path / "x=y.txt")])
    assert got == (
        Source(name="books", paths=("a", "b")),
        Source(name="my-books", paths=("data/my books.jsonl.zst",)),
        Source(name="x-y", paths=(str(tmp_path / "x=y.txt"),)),
    )


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            ["d/a.txt", "e/a.jsonl"],
            "two sources would both be stream 'a'; name this one: NAME=e/a.jsonl",
        ),
        (["a.txt", "a=b"], "stream 'a' is named twice"),
        (["a="], "no path after the name"),
        (["tokenizer=b"], "none of tokenizer, manifest.json; got 'tokenizer'"),
        (["/"], "cannot name a stream after '/'"),
    ],
)
def test_bad_sources(specs, message):
    with pytest.raises(CorpusError, match=message):
        sources_from(specs)


def test_files_are_found_in_order_without_hidden_ones(tmp_path):
    for name in ("b.txt", "a/c.jsonl.gz", ".hidden/d.txt", "a/.e.txt", "f.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = Source(name="s", paths=(str(tmp_path),))

    def found(*extensions):
        return [(f.path[len(str(tmp_path)) + 1 :], f.kind) for f in find_files(source, extensions)]

    assert found() == [("a/c.jsonl.gz", "jsonl"), ("b.txt", "text")]
    assert found(".md") == [("f.md", "text")]
    named = Source(name="s", paths=(str(tmp_path / "b.txt"),))
    assert [(f.kind, f.size) for f in find_files(named, (".md",))] == [("text", 5)]
