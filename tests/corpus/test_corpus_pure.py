"""Packing, splitting, names, settings and the manifest: the parts without files."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.corpus import (
    CorpusError,
    Manifest,
    Part,
    Source,
    TextCorpusSettings,
    sources_from,
)
from attent_stream.corpus.manifest import BadRecords
from attent_stream.corpus.pack import cut, split_of, token_dtype
from attent_stream.corpus.parallel import ordered_map
from attent_stream.corpus.records import _lines
from attent_stream.corpus.settings import COMPRESSIONS, HASHES, parse_bytes
from attent_stream.corpus.sources import kind_of


@given(
    st.lists(st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=5), max_size=5),
    st.integers(1, 17),
)
def test_cut_conserves_order_and_tokens(calls, seq_len):
    carry, out, everything = np.empty(0, np.uint16), [], []
    for call in calls:
        pieces = [np.array(piece, np.uint16) for piece in call]
        samples, carry = cut([carry, *pieces], seq_len)
        assert samples.shape[1] == seq_len and samples.dtype == carry.dtype == np.uint16
        assert len(carry) < seq_len
        out += samples.ravel().tolist()
        everything += [token for piece in call for token in piece]
    assert out + carry.tolist() == everything


def test_split_is_by_content_and_in_proportion():
    texts = [f"document {i}" for i in range(20_000)]
    splits = np.array([split_of(text, (0.1, 0.25)) for text in texts])
    np.testing.assert_allclose(np.bincount(splits) / len(texts), [0.1, 0.25, 0.65], atol=0.015)
    assert split_of(texts[0], (0.1, 0.25)) == splits[0]
    assert {split_of(text, ()) for text in texts[:10]} == {0}
    # A pinned value: a corpus written today and one written next year hold out the same documents.
    assert [split_of(f"{i}", (0.5,)) for i in range(8)] == [1, 1, 0, 1, 0, 1, 0, 1]


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_lines_are_those_of_split(pieces, size):
    data = b"\n".join(pieces)
    chunks = [(data[i : i + size], i) for i in range(0, len(data), size)]
    got = [(number, line) for number, line, _ in _lines(chunks)]
    expected = list(enumerate(data.split(b"\n"), 1))
    if expected[-1][1] == b"":
        expected.pop()
    assert got == expected


def test_token_dtype():
    assert [token_dtype(i) for i in (0, 65535, 65536)] == ["uint16", "uint16", "uint32"]


@pytest.mark.parametrize(
    ("text", "size"), [("8mb", 8 << 20), ("1.5kb", 1536), ("10", 10), (7, 7), ("2GB", 2 << 30)]
)
def test_parse_bytes(text, size):
    assert parse_bytes(text, "size") == size


def test_names_are_those_of_streaming():
    from streaming.base.compression import get_compressions
    from streaming.base.hashing import get_hashes

    ours = {f"{name}:{level}" for name, levels in COMPRESSIONS.items() for level in levels} | set(
        COMPRESSIONS
    )
    assert ours == get_compressions()
    assert set(HASHES) <= get_hashes()


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "at least one source"),
        ({"tokenizer": "x"}, "either tokenizer .* or vocab_size"),
        ({"vocab_size": None}, "either tokenizer .* or vocab_size"),
        ({"vocab_size": 256}, "vocab_size must be a whole number from 257, got 256"),
        ({"vocab_size": 0}, "vocab_size must be a whole number from 257, got 0"),
        ({"seq_len": 1}, "seq_len must be a whole number from 2, got 1"),
        ({"seq_len": True}, "seq_len must be a whole number"),
        ({"splits": (("train", 0.1),)}, "not 'train', got 'train'"),
        ({"splits": (("a/b", 0.1),)}, "got 'a/b'"),
        ({"splits": (("v", 1.5),)}, "fraction of split 'v' must be between 0 and 1, got 1.5"),
        ({"splits": (("v", 0.6), ("w", 0.5))}, "less than 1, got 1.1"),
        ({"splits": (("v", 0.1), ("v", 0.1))}, "different names"),
        ({"workers": 0}, "workers must be a whole number from 1, got 0"),
        ({"shard_size": "big"}, "a size like 500kb or 8mb, got 'big'"),
        ({"shard_size": "1kb"}, "shard_size must hold a sample"),
        ({"shard_size": "4gb"}, "less than 4gb"),
        ({"compression": "rar"}, "expected one of br, bz2, gz, snappy, zstd, got 'rar'"),
        ({"compression": "zstd:99"}, "got 'zstd:99'"),
        ({"hashes": ("crc",)}, "hashes: expected some of .*xxh64.*, got 'crc'"),
        ({"tokenizer_sample": "0"}, "tokenizer_sample must be a size"),
        ({"out": ""}, "out must be a folder"),
    ],
)
def test_settings_are_checked(changes, message):
    good = {"sources": (Source(name="a", paths=("a",)),), "out": "out", "vocab_size": 300}
    TextCorpusSettings(**good)
    with pytest.raises(CorpusError, match=message):
        TextCorpusSettings(**{**good, **changes})


def manifest_for():
    return Manifest(
        kind="text",
        parts=(
            Part(
                stream="a",
                split="train",
                path="a/train",
                documents=3,
                samples=2,
                tokens=70,
                dropped_tokens=6,
            ),
        ),
        bad=(BadRecords(stream="a", reason="empty text", count=1, first=("f:1",)),),
        tokenizer="tokenizer",
        seq_len=32,
        dtype="uint16",
        settings={"text_key": "text"},
    )


def test_manifest_round_trip(tmp_path):
    manifest = manifest_for()
    assert Manifest.load(manifest.save(tmp_path)) == Manifest.load(tmp_path) == manifest
    assert (
        manifest.total("tokens") == manifest.total("tokens", "train") == 70
        and manifest.total("tokens", "x") == 0
    )


@pytest.mark.parametrize(
    "path", ["/etc", "../x", "a/../../x", "", ".", "C:\\x", "a\\..\\b", "s3://b/x", 5, None]
)
@pytest.mark.parametrize("where", ["part", "tokenizer"])
def test_manifest_paths_stay_inside(tmp_path, where, path):
    if where == "tokenizer" and path is None:
        pytest.skip("no tokenizer is allowed")
    file = manifest_for().save(tmp_path)
    value = json.loads(file.read_text())
    (value["parts"][0] if where == "part" else value)[
        "path" if where == "part" else "tokenizer"
    ] = path
    file.write_text(json.dumps(value))
    with pytest.raises(CorpusError, match="must be a relative path inside the corpus, got"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.update(format=9), "format 1 expected, got 9"),
        (lambda v: v.update(kind="video"), "one of text, images, got 'video'"),
        (lambda v: v.update(evil=1), r"unknown key\(s\) evil"),
        (lambda v: v.pop("parts"), "a list of Part expected"),
        (lambda v: v["parts"][0].pop("samples"), "samples"),
        (
            lambda v: v["parts"][0].update(samples=-1),
            "samples of part 'a/train' must be a whole number from 0, got -1",
        ),
        (lambda v: v["parts"].append("x"), "not a manifest"),
    ],
)
def test_manifest_is_checked(tmp_path, edit, message):
    file = manifest_for().save(tmp_path)
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))
    with pytest.raises(CorpusError, match=message):
        Manifest.load(file)


def test_no_manifest(tmp_path):
    with pytest.raises(CorpusError, match="manifest.json is missing"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match="is not a manifest of this version"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
def test_ordered_map_keeps_order(workers):
    with ordered_map(abs, workers) as run:
        assert list(run(range(50), lambda i: -i)) == [(i, i) for i in range(50)]


@pytest.mark.parametrize("workers", [1, 2])
def test_ordered_map_passes_errors_on(workers):
    with pytest.raises(ZeroDivisionError), ordered_map(_inverse, workers) as run:
        list(run([2, 1, 0, 1], lambda i: i))


def _inverse(x):
    return 1 / x


def test_tokenizer_pickles_with_its_ways():
    from attent_stream.corpus.tokenizer import EOS, train_tokenizer

    tokenizer = train_tokenizer(["some text"] * 3, 300)
    again = pickle.loads(pickle.dumps(tokenizer))
    for one in (tokenizer, again):
        (ids,) = one.encode([f"a {EOS} b"], "uint16")
        assert ids[-1] == one.eos_id and one.eos_id not in ids[:-1]
    assert (
        again.encode(["some text"], "uint16")[0] == tokenizer.encode(["some text"], "uint16")[0]
    ).all()
