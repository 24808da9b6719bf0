"""The text corpus: what Streaming reads back is what went in."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import documents, write_jsonl
from text_corpora import SEQ_LEN, check_part, settings_for

from attent_stream.corpus import CorpusError, Manifest, write_text_corpus
from attent_stream.corpus.pack import split_of


def test_round_trip_with_splits_and_special_text(tmp_path):
    texts = [
        *documents(300),
        "a document that says <|endoftext|> is one document",
        "b <|endoftext|>",
    ]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    manifest = write_text_corpus(
        settings_for(tmp_path, f"a={source}", splits=(("valid", 0.2), ("test", 0.1)))
    )
    groups = [[t for t in texts if split_of(t, (0.2, 0.1)) == i] for i in range(3)]
    assert manifest == Manifest.load(tmp_path / "out")
    assert manifest.splits == ("train", "valid", "test") and all(groups)
    for split, group in zip(("valid", "test", "train"), groups, strict=True):
        check_part(tmp_path / "out", manifest, "a", split, group)


def test_fixed_size_encoding(tmp_path):
    write_text_corpus(
        settings_for(tmp_path, f"a={write_jsonl(tmp_path / 'a.jsonl', documents(50))}")
    )
    index = json.loads((tmp_path / "out/a/train/index.json").read_text())
    assert index["shards"][0]["column_encodings"] == [f"ndarray:uint16:{SEQ_LEN}"]
    assert index["shards"][0]["column_sizes"] == [2 * SEQ_LEN]


def test_every_format_gives_the_same_corpus(tmp_path):
    texts = documents(120)
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.ndjson"):
        write_jsonl(tmp_path / name, texts)
    pq.write_table(
        pa.table({"text": texts, "other": range(120)}), tmp_path / "a.parquet", row_group_size=50
    )
    pq.write_table(
        pa.table({"text": pa.array(texts).dictionary_encode()}), tmp_path / "dictionary.parquet"
    )
    pq.write_table(
        pa.table({"text": pa.array(texts, pa.large_string())}), tmp_path / "large.parquet"
    )
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / ".hidden").mkdir()
    (tmp_path / "folder" / ".hidden" / "000.txt").write_text("not to be read")
    for i, text in enumerate(texts):
        place = tmp_path / "folder" / ("inner" if i >= 60 else "")
        (place / f"{i:03}.{'txt' if i % 2 else 'md'}").write_bytes(text.encode())
    names = [
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.ndjson",
        "a.parquet",
        "dictionary.parquet",
        "large.parquet",
    ]
    specs = [f"s{i}={tmp_path / name}" for i, name in enumerate(names)] + [
        f"files={tmp_path / 'folder'}"
    ]
    formats = settings_for(tmp_path, *specs[:-1])
    manifest = write_text_corpus(formats)
    for stream in (f"s{i}" for i in range(len(names))):
        check_part(tmp_path / "out", manifest, stream, "train", texts)
    manifest = write_text_corpus(
        settings_for(tmp_path, specs[-1], out=str(tmp_path / "2"), extensions=("md", "txt"))
    )
    check_part(tmp_path / "2", manifest, "files", "train", texts)


def test_workers_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("attent_stream.corpus.records.BATCH_RECORDS", 7)
    texts = documents(400)
    specs = [
        f"{name}={write_jsonl(tmp_path / f'{name}.jsonl', part)}"
        for name, part in (("a", texts[:250]), ("b", texts[250:]))
    ]
    one = settings_for(
        tmp_path, *specs, out=str(tmp_path / "1"), shard_size="5kb", splits=(("valid", 0.2),)
    )
    two = replace(one, workers=2, out=str(tmp_path / "2"))
    assert write_text_corpus(one) == write_text_corpus(two)
    files = sorted(
        p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*") if p.is_file()
    )
    assert files == sorted(
        p.relative_to(tmp_path / "2") for p in (tmp_path / "2").rglob("*") if p.is_file()
    )
    assert sum(p.name.startswith("shard") for p in files) > 6
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


def test_mostly_bad_is_an_error_that_leaves_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' * 10 + '{"body": "x"}\n' * 11)
    with pytest.raises(
        CorpusError,
        match=r"stream 'a': 11 of 21 records are bad.*no key 'text' \(first: .*a.jsonl:11\)",
    ):
        write_text_corpus(settings_for(tmp_path, f"a={path}"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_too_little_text(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["two words"])
    with pytest.raises(
        CorpusError, match="split 'train' has .* tokens, and no stream fills one sample of 512"
    ):
        write_text_corpus(settings_for(tmp_path, f"a={path}", seq_len=512))
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_stream_too_small_for_a_sample_is_left_out(tmp_path):
    small = write_jsonl(tmp_path / "small.jsonl", ["two words"])
    large = write_jsonl(tmp_path / "a.jsonl", documents(30))
    manifest = write_text_corpus(settings_for(tmp_path, str(large), str(small)))
    assert [(p.path, p.samples > 0) for p in manifest.parts] == [
        ("a/train", True),
        ("small/train", False),
    ]
    assert not (tmp_path / "out" / "small").exists()


def test_held_out_text_never_trains_the_tokenizer(tmp_path, monkeypatch):
    seen = []

    def spy(texts, vocab_size):
        from attent_stream.corpus.tokenizer import train_tokenizer

        seen.extend(texts)
        return train_tokenizer(seen, vocab_size)

    monkeypatch.setattr("attent_stream.corpus.text.train_tokenizer", spy)
    texts = documents(200)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    write_text_corpus(settings_for(tmp_path, f"a={path}", splits=(("valid", 0.3),)))
    assert seen == [t for t in texts if split_of(t, (0.3,)) == 1]
