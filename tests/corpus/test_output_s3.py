"""The corpus tool against real S3 servers (`.ci/servers` installs them)."""

import json
from dataclasses import replace

import numpy as np
import pytest
from corpus_files import documents, read_tokens, write_jsonl
from stores import s3_client

from attent_stream.corpus import (
    CorpusError,
    Manifest,
    TextCorpusSettings,
    sources_from,
    write_text_corpus,
)

BUCKET = "corpora"


@pytest.fixture
def s3(s3_server, monkeypatch):
    client = s3_client(monkeypatch, s3_server, BUCKET)
    yield client
    for key in keys(client):
        client.delete_object(Bucket=BUCKET, Key=key)


def keys(client):
    return [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def settings_for(tmp_path, **changes):
    sources = [
        f"{name}={write_jsonl(tmp_path / f'{name}.jsonl', documents(n))}"
        for name, n in (("a", 200), ("b", 90))
    ]
    values = {
        "out": f"s3://{BUCKET}/deep/corpus",
        "vocab_size": 300,
        "seq_len": 32,
        "shard_size": "5kb",
    }
    return TextCorpusSettings(
        sources=sources_from(sources), progress=False, **{**values, **changes}
    )


def test_round_trip(tmp_path, s3, monkeypatch):
    from streaming import StreamingDataset
    from streaming.base.storage.upload import S3Uploader

    order, upload = [], S3Uploader.upload_file

    def spy(self, filename):
        upload(self, filename)
        order.append(filename)

    monkeypatch.setattr(S3Uploader, "upload_file", spy)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = settings_for(tmp_path, compression="zstd")
    manifest = write_text_corpus(settings)
    assert not list(tmp_path.glob("attent-corpus-*"))
    assert order[-1] == "manifest.json" and sorted(order[-3:-1]) == [
        "a/train/index.json",
        "b/train/index.json",
    ]
    assert sorted(f"deep/corpus/{name}" for name in order) == sorted(keys(s3))
    assert (
        json.load(s3.get_object(Bucket=BUCKET, Key="deep/corpus/manifest.json")["Body"])["seq_len"]
        == 32
    )
    write_text_corpus(replace(settings, out=str(tmp_path / "here")))
    assert Manifest.load(tmp_path / "here") == manifest
    for part in manifest.parts:
        data = StreamingDataset(
            remote=f"{settings.out}/{part.path}",
            local=str(tmp_path / "cache" / part.stream),
            shuffle=False,
            batch_size=1,
        )
        got = np.stack([data[i]["tokens"] for i in range(len(data))])
        np.testing.assert_array_equal(got, read_tokens(tmp_path / "here" / part.path))


def test_overwrite(tmp_path, s3):
    settings = settings_for(tmp_path)
    write_text_corpus(settings)
    before = set(keys(s3))
    with pytest.raises(CorpusError, match="deep/corpus is not empty; --overwrite replaces"):
        write_text_corpus(settings)
    write_text_corpus(replace(settings, overwrite=True, sources=settings.sources[:1]))
    after = set(keys(s3))
    assert after < before and not any("/b/" in key for key in after)
    s3.put_object(Bucket=BUCKET, Key="deep/corpus/thesis.tex", Body=b"the only copy")
    with pytest.raises(CorpusError, match="holds more than a corpus"):
        write_text_corpus(replace(settings, overwrite=True))
    assert set(keys(s3)) == after | {"deep/corpus/thesis.tex"}


def test_a_failure_leaves_nothing(tmp_path, s3):
    settings = settings_for(tmp_path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n" * 5)
    sources = (*settings.sources, *sources_from([f"bad={bad}"]))
    with pytest.raises(CorpusError, match="stream 'bad': 5 of 5"):
        write_text_corpus(replace(settings, sources=sources))
    assert keys(s3) == []


def test_no_bucket(tmp_path, s3):
    with pytest.raises(CorpusError, match="cannot write to s3://none/x: "):
        write_text_corpus(settings_for(tmp_path, out="s3://none/x"))
