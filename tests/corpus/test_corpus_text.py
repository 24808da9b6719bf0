"""The text corpus: what Streaming reads back is what went in."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import documents, read_tokens, write_jsonl
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from attent_stream.corpus import (
    CorpusError,
    Manifest,
    TextCorpusSettings,
    sources_from,
    write_text_corpus,
)
from attent_stream.corpus.pack import split_of

SEQ_LEN = 32


def settings_for(tmp_path, *specs, **changes):
    values = {
        "vocab_size": 300,
        "seq_len": SEQ_LEN,
        "out": str(tmp_path / "out"),
        "progress": False,
    }
    return TextCorpusSettings(sources=sources_from(specs), **{**values, **changes})


def expected_tokens(out, texts):
    """The oracle: every document encoded by itself with the saved tokenizer, each followed
    by EOS.
    """
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    eos = tokenizer.token_to_id("<|endoftext|>")
    return np.concatenate([[*tokenizer.encode(text).ids, eos] for text in texts])


def check_part(out, manifest, stream, split, texts):
    part = next(p for p in manifest.parts if (p.stream, p.split) == (stream, split))
    samples = read_tokens(out / part.path)
    expected = expected_tokens(out, texts)
    assert samples.dtype == manifest.dtype and samples.shape == (part.samples, SEQ_LEN)
    assert len(expected) == part.tokens == part.samples * SEQ_LEN + part.dropped_tokens
    assert part.dropped_tokens < SEQ_LEN and part.documents == len(texts)
    np.testing.assert_array_equal(samples.ravel(), expected[: samples.size])


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


def test_bad_records_are_counted_and_named(tmp_path):
    good = documents(30)
    lines = [json.dumps({"text": t}).encode() for t in good]
    bad = {
        3: (b"{broken", "invalid JSON"),
        5: (b'{"txt": "x"}', "no key 'text'"),
        7: (b'{"text": 5}', "text is not a string"),
        9: (b'{"text": "\xff"}', "invalid UTF-8"),
        11: (b'{"text": "\\ud800"}', "invalid UTF-8"),
        13: (b'{"text": " "}', "empty text"),
        15: (b"[1]", "no key 'text'"),
        17: (b"[" * 100_000, "invalid JSON"),
        19: (b'{"text": ' + b"9" * 5000 + b"}", "invalid JSON"),
    }
    for number, (line, _) in sorted(bad.items()):
        lines.insert(number - 1, line)
    lines.insert(20, b"")  # an empty line is no record
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    for workers in (1, 2):
        out = tmp_path / str(workers)
        manifest = write_text_corpus(
            settings_for(tmp_path, f"a={path}", workers=workers, out=str(out))
        )
        check_part(out, manifest, "a", "train", good)
        found = {(place, record.reason) for record in manifest.bad for place in record.first}
        assert found == {(f"{path}:{number}", reason) for number, (_, reason) in bad.items()}
        assert sum(record.count for record in manifest.bad) == len(bad)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_cut_file_is_one_bad_record(tmp_path, ending):
    texts = documents(500)
    whole = write_jsonl(tmp_path / f"b.jsonl{ending}", texts).read_bytes()
    (tmp_path / f"b.jsonl{ending}").write_bytes(whole[: len(whole) - 20])
    write_jsonl(tmp_path / "a.jsonl", texts)
    paths = f"s={tmp_path / 'a.jsonl'}", f"s={tmp_path}/b.jsonl{ending}"
    manifest = write_text_corpus(settings_for(tmp_path, *paths))
    assert [(bad.reason, bad.count) for bad in manifest.bad][-1:] == [("broken compression", 1)]
    assert f"b.jsonl{ending}:" in manifest.bad[-1].first[0]


def test_broken_and_wrong_parquet(tmp_path):
    texts = documents(40)
    write_jsonl(tmp_path / "a.jsonl", texts)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"words": texts[:5]}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"text": [*texts[:5], None]}), tmp_path / "d.parquet")
    raw = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(pa.table({"text": raw}), tmp_path / "e.parquet")
    manifest = write_text_corpus(
        settings_for(
            tmp_path,
            *(
                f"s={tmp_path}/{n}"
                for n in ("a.jsonl", "b.parquet", "c.parquet", "d.parquet", "e.parquet")
            ),
        )
    )
    check_part(tmp_path / "out", manifest, "s", "train", texts + texts[:5])
    counts = {bad.reason: bad.count for bad in manifest.bad}
    assert counts == {
        "broken parquet": 1,
        "no key 'text'": 5,
        "text is not a string": 1,
        "invalid UTF-8": 1,
    }


def test_too_long_records(tmp_path, monkeypatch):
    monkeypatch.setattr("attent_stream.corpus.records.MAX_RECORD_BYTES", 5000)
    monkeypatch.setattr("attent_stream.corpus.records.READ_BYTES", 700)
    texts = documents(60)
    path = write_jsonl(tmp_path / "a.jsonl", [*texts[:30], "x" * 6000, *texts[30:], "y" * 6000])
    manifest = write_text_corpus(settings_for(tmp_path, f"a={path}"))
    check_part(tmp_path / "out", manifest, "a", "train", texts)
    assert manifest.bad[0].count == 2 and manifest.bad[0].first == (f"{path}:31", f"{path}:62")


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
        CorpusError, match="split 'train' has .* tokens .* no stream fills one sample of 512"
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


def test_trained_tokenizer_loads_in_transformers_and_is_reproducible(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(100))
    one, two = (
        settings_for(tmp_path, f"a={path}"),
        settings_for(tmp_path, f"a={path}", out=str(tmp_path / "2")),
    )
    write_text_corpus(one)
    write_text_corpus(two)
    saved = tmp_path / "out" / "tokenizer"
    assert (saved / "tokenizer.json").read_bytes() == (
        tmp_path / "2/tokenizer/tokenizer.json"
    ).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    assert len(tokenizer) == 300 and tokenizer.eos_token_id == 0
    text = "Any text, Ω\x00\t  of any bytes 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_given_tokenizer_is_used_and_copied(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(80))
    write_text_corpus(settings_for(tmp_path, f"a={path}", out=str(tmp_path / "first")))
    given = tmp_path / "first" / "tokenizer"
    for tokenizer in (given, given / "tokenizer.json"):
        out = tmp_path / tokenizer.name
        manifest = write_text_corpus(
            settings_for(
                tmp_path,
                f"a={path}",
                vocab_size=None,
                tokenizer=str(tokenizer),
                out=str(out),
                workers=2,
            )
        )
        check_part(out, manifest, "a", "train", documents(80))
        assert AutoTokenizer.from_pretrained(out / "tokenizer").eos_token == "<|endoftext|>"


def test_ids_from_65536_take_uint32(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(80))
    write_text_corpus(settings_for(tmp_path, f"a={path}", out=str(tmp_path / "first")))
    value = json.loads((tmp_path / "first/tokenizer/tokenizer.json").read_text())
    value["added_tokens"].append({**value["added_tokens"][0], "id": 65536, "content": "<|far|>"})
    value["model"]["vocab"]["<|far|>"] = 65536
    value["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "wide.json").write_text(json.dumps(value))
    manifest = write_text_corpus(
        settings_for(tmp_path, f"a={path}", vocab_size=None, tokenizer=f"{tmp_path}/wide.json")
    )
    assert (manifest.dtype, manifest.vocab_size) == ("uint32", 65537)
    check_part(tmp_path / "out", manifest, "a", "train", documents(80))


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


def test_tokenizer_sample_is_bounded_and_spread(tmp_path, monkeypatch):
    from attent_stream.corpus.encode import sample_texts
    from attent_stream.corpus.sources import Source, find_files

    texts = documents(400)
    for i in range(40):
        write_jsonl(tmp_path / f"{i:02}.jsonl", texts[10 * i : 10 * i + 10])
    files = find_files(Source(name="a", paths=(str(tmp_path),)))
    budget = sum(len(t.encode()) for t in texts) // 4
    got = list(sample_texts(files, text_key="text", fractions=(), budget=budget, progress=False))
    size = sum(len(t.encode()) for t in got)
    assert budget * 0.7 < size < budget + 1000
    assert len({texts.index(t) // 10 for t in got}) > 30
    everything = sample_texts(files, text_key="text", fractions=(), budget=1 << 30, progress=False)
    assert list(everything) == texts
