"""Reading files into records, and records into documents."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import documents, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from text_corpora import check_part, settings_for

from attent_stream.corpus import write_text_corpus
from attent_stream.corpus.records import BadRecord, _lines, parse_record, read_batches
from attent_stream.corpus.sources import InputFile


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_lines_are_those_of_split(pieces, size):
    data = b"\n".join(pieces)
    chunks = [(data[i : i + size], i) for i in range(0, len(data), size)]
    got = [(number, line) for number, line, _ in _lines(chunks)]
    expected = list(enumerate(data.split(b"\n"), 1))
    if expected[-1][1] == b"":
        expected.pop()
    assert got == expected


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


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("jsonl", b'{"text": "a b"}', "a b"),
        ("jsonl", b'\xef\xbb\xbf{"text": "a"}', "a"),
        ("text", b"a\nb", "a\nb"),
        ("parquet", "Größe".encode(), "Größe"),
        ("parquet", None, BadRecord("text is not a string")),
        ("text", b"\xff", BadRecord("invalid UTF-8")),
        ("text", b" \n", BadRecord("empty text")),
        ("jsonl", b'{"text": 1}', BadRecord("text is not a string")),
        ("jsonl", b'{"a": "b"}', BadRecord("no key 'text'")),
    ],
)
def test_parse_record(kind, payload, expected):
    if isinstance(expected, str):
        assert parse_record(kind, payload, "text") == expected
    else:
        with pytest.raises(BadRecord, match=f"^{expected}$"):
            parse_record(kind, payload, "text")


def test_batches_hold_all_records_in_order_and_count_all_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("attent_stream.corpus.records.BATCH_RECORDS", 7)
    texts = documents(30)
    (tmp_path / "b.txt").write_text("whole")
    paths = [write_jsonl(tmp_path / "a.jsonl", texts), tmp_path / "b.txt", tmp_path / "none.jsonl"]
    sizes = [path.stat().st_size for path in paths[:2]] + [5]
    kinds = ["jsonl", "text", "jsonl"]
    files = [
        InputFile(path=str(path), kind=kind, size=size)
        for path, kind, size in zip(paths, kinds, sizes, strict=True)
    ]
    batches = list(read_batches(files, "text"))
    assert all(len(batch.payloads) <= 7 for batch in batches)
    got = [parse_record(b.kind, payload, "text") for b in batches for payload in b.payloads]
    assert got == [*texts, "whole"]
    assert sum(batch.read for batch in batches) == sum(sizes)
    places = [place for batch in batches for place in batch.locations]
    assert places == [*(f"{paths[0]}:{n}" for n in range(1, 31)), str(paths[1])]
    bad = [entry for batch in batches for entry in batch.bad]
    assert bad == [("unreadable file (No such file or directory)", str(paths[2]), 1)]
