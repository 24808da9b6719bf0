"""Data sets that are replaced at the same address."""

import gc
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpora import difficulty
from stores import CREDENTIALS, opened, read
from streaming import MDSWriter, Stream
from taught import make_loader

from attent_stream import TeachingDataset
from attent_stream.base.errors import CorruptError, MissingError, StaleIndexError
from attent_stream.store import index, stale

STALE = (
    r"the index in \S*/cache is older than the store's.*; "
    r"remove the folder \S*/cache "
)


def write(folder: Path, count: int, first: int = 0, width: int = 4, **settings) -> Path:
    """Write samples of one size, so that shards of other samples have the same sizes."""
    shutil.rmtree(folder, ignore_errors=True)
    columns = {"id": "int", "difficulty": "float32", "more": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=512, **settings) as writer:
        for sample in range(first, first + count):
            writer.write(
                {"id": sample, "difficulty": np.float32(difficulty(sample)), "more": bytes(width)}
            )
    return folder


def filled(tmp_path, remote, **settings) -> list[int]:
    """Fill the cache, and say with what."""
    ids = read(opened(tmp_path, remote, **settings))
    gc.collect()
    return ids


@pytest.fixture
def corpus(buckets, request):
    """A folder in the bucket, of this test's own, and its address."""
    name = request.node.name.split("[")[0]
    yield buckets / "bucket" / name, f"s3://bucket/{name}"
    shutil.rmtree(buckets / "bucket" / name, ignore_errors=True)


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("s3", {}),
        ("folder", {}),
        ("folder", {"hashes": ["sha1"]}),
        ("folder", {"compression": "zstd"}),
    ],
)
def test_a_replaced_data_set_of_the_same_sizes_is_refused_at_the_start(
    tmp_path, corpus, proxy, place, settings
):
    folder, remote = corpus
    remote = remote if place == "s3" else folder
    write(folder, 60, **settings)
    opened(tmp_path, remote).prepare_shard(0)  # the rest would come from the new one
    gc.collect()
    write(folder, 90, first=1000, **settings)
    with pytest.raises(StaleIndexError, match=r"index.json of stream 0 \(.*\), rank 0: " + STALE):
        opened(tmp_path, remote)
    shutil.rmtree(tmp_path / "cache")
    assert read(opened(tmp_path, remote)) == list(range(1000, 1090))


def test_one_of_several_streams_was_replaced(tmp_path, corpus, proxy):

    folder, remote = corpus

    def both():
        places = [
            {"remote": f"{remote}/{name}", "local": str(tmp_path / name / "cache")}
            for name in ("a", "b")
        ]
        return TeachingDataset(streams=[Stream(**place) for place in places], batch_size=4)

    for name in ("a", "b"):
        write(folder / name, 30)
    assert len(both()) == 60
    gc.collect()
    write(folder / "b", 31)
    with pytest.raises(StaleIndexError, match=r"index.json of stream 1 .*/b/cache is older"):
        both()


@pytest.mark.parametrize(
    ("how", "workers"), [("other sizes", 0), ("fewer shards", 0), ("other hashes", 1)]
)
def test_a_shard_that_does_not_fit_a_stale_index_is_told_as_that(
    tmp_path, corpus, proxy, how, workers
):
    """The data set was replaced when the run had the index, or could not compare it."""
    folder, remote = corpus
    hashes = {"hashes": ["xxh64"]} if how == "other hashes" else {}
    write(folder, 60, **hashes)
    data = {
        "local": str(tmp_path / "cache"),
        "remote": remote,
        "batch_size": 4,
        "window": 4,
        "gap": 1,
        "num_canonical_nodes": 1,
    }
    loader = make_loader(data | {"download_retry": 2}, {"num_workers": workers}, {})
    new = {
        "other sizes": {"count": 60, "width": 9},
        "fewer shards": {"count": 20},
        "other hashes": {"count": 60, "first": 500},
    }
    write(folder, **new[how], **hashes)
    with pytest.raises(
        StaleIndexError, match=r"stream 0 \(s3://bucket/\S*\), shard \d+ .*" + STALE
    ):
        for _ in loader:
            loader.teach(lambda batch: batch["difficulty"])


@pytest.mark.parametrize("fault", ["flip", "short"])
def test_a_damaged_shard_is_no_stale_index(tmp_path, proxy, fault):
    data = opened(tmp_path, "s3://bucket/hashed")
    proxy.faults({"kind": fault, "match": "shard.00001", "methods": ["HEAD", "GET"]})
    with pytest.raises(CorruptError, match="write this shard again") as caught:
        read(data)
    assert not isinstance(caught.value, StaleIndexError)
    proxy.faults(
        {"kind": "status", "status": 404, "match": "shard.00001", "methods": ["HEAD", "GET"]}
    )
    with pytest.raises(MissingError):
        read(data)


def test_comparing_takes_one_request_a_stream(tmp_path, corpus, proxy, monkeypatch):
    folder, remote = corpus
    write(folder, 60)
    expected = filled(tmp_path, remote)

    def requests():
        asked = [(method, key.split("/")[-1]) for _, method, key, _ in proxy.requests()]
        proxy.forget()
        return asked

    assert requests().count(("GET", "index.json")) == 1  # fetched, and not compared with itself
    assert filled(tmp_path, remote) == expected
    assert requests() == [("GET", "index.json")]
    path = folder / "index.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()), indent=3)
    )  # the same, written and tagged in another way
    assert filled(tmp_path, remote) == expected
    assert requests() == [("GET", "index.json")]
    for name, value in {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    index.fetch_indices({"remote": remote, "local": str(tmp_path / "cache")})
    assert requests() == []  # another rank of the node does it


def test_no_comparison_without_another_place(tmp_path, monkeypatch):
    folder = str(write(tmp_path / "data", 60))
    monkeypatch.setattr(stale, "is_stale", None)
    for places in ({"local": folder}, {"local": folder, "remote": folder}):
        data = TeachingDataset(**places, batch_size=4)
        assert read(data) == list(range(60))
        del data
        gc.collect()


@pytest.mark.parametrize("fault", ["gone", "forbidden", "missing", "no JSON"])
def test_a_full_cache_starts_without_the_store(tmp_path, corpus, proxy, monkeypatch, caplog, fault):
    folder, remote = corpus
    write(folder, 60)
    expected = filled(tmp_path, remote)
    if fault == "gone":
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://me:PLANTED@127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    elif fault == "no JSON":
        (folder / "index.json").write_text("<html>sign in</html>")
    else:
        proxy.faults(
            {
                "kind": "status",
                "status": {"forbidden": 403, "missing": 404}[fault],
                "methods": ["GET", "HEAD"],
            }
        )
    with caplog.at_level(logging.WARNING):
        assert filled(tmp_path, remote) == expected
    assert caplog.text.count("could not be compared with the store's and is used as is") == 1
    assert "PLANTED" not in caplog.text and CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in caplog.text
    assert sorted(os.listdir(tmp_path / "cache")) == sorted(os.listdir(folder))
