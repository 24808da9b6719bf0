"""Where the cache's disk or limit is too small, and what no message may contain."""

import errno
import logging
import os
import subprocess

import pytest
import streaming.base.stream
from stores import CREDENTIALS, SAMPLES, shards_in, taught_run
from streaming import Stream
from streaming.base.dataset import _ShardState

from attent_stream.base.errors import (
    CacheFolderError,
    CacheLimitError,
    DeniedError,
    DiskFullError,
    MissingError,
    StoreError,
    UnreachableError,
)
from attent_stream.data.dataset import TeachingDataset
from attent_stream.store import fetch, store_errors
from attent_stream.store.parts import PARTS


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system that some of the shards fit on."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mount is not allowed here: no tiny file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("corpus", ["plain", "zipped"])
def test_a_full_disk_is_named_and_left_tidy(tiny_disk, proxy, corpus):
    data = TeachingDataset(
        remote=f"s3://bucket/{corpus}", local=str(tiny_disk), batch_size=4, download_retry=3
    )
    (tiny_disk / "ballast").write_bytes(bytes(4096))
    with pytest.raises(
        DiskFullError, match=r"shard \d+ .*1 try in .*No space left on device.*set cache_limit"
    ) as caught:
        [data[i] for i in range(SAMPLES)]
    assert f"s3://bucket/{corpus}" in str(caught.value)
    sizes = {pair[0].basename: pair[0].bytes for shard in data.shards for pair in shard.file_pairs}
    whole = [name for name in shards_in(tiny_disk) if name.endswith(".mds")]
    assert whole and all((tiny_disk / name).stat().st_size == sizes[name] for name in whole)
    assert not [name for name in os.listdir(tiny_disk) if name.endswith(".tmp")]
    assert not list(tiny_disk.glob(f"{PARTS}*"))
    (tiny_disk / "ballast").unlink()  # some space is made, and the same data set goes on
    lost = int(str(caught.value).split(", shard ")[1].split()[0])
    data.prepare_shard(lost)
    assert data._shard_states[lost] == _ShardState.LOCAL


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_each_way_for_a_disk_to_be_full(tmp_path, proxy, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    data = TeachingDataset(remote="s3://bucket/plain", local=str(tmp_path / "cache"), batch_size=4)
    monkeypatch.setattr(fetch.os, "replace", refuse)
    with pytest.raises(DiskFullError, match=os.strerror(number)):
        data[0]


def test_a_read_only_disk_is_named_at_once(tiny_disk, proxy):
    data = TeachingDataset(
        remote="s3://bucket/plain", local=str(tiny_disk), batch_size=4, download_retry=3
    )
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(
        CacheFolderError,
        match=r"shard 0 .*folder cannot be used \(1 try in .*Read-only.*may write the local",
    ):
        data[0]
    subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
    assert data[0]["id"] == 0


HERE, THERE = "/cache/mine/.attent-parts/x.part", "/mnt/corpus/shard.00000.mds"
REFUSALS = [
    (PermissionError(errno.EACCES, "no", HERE), CacheFolderError),
    # The folder that the local one would be made in
    (OSError(errno.EROFS, "no", "/cache"), CacheFolderError),
    (FileNotFoundError(errno.ENOENT, "no", HERE), CacheFolderError),
    (OSError(errno.ENOSPC, "no", HERE), DiskFullError),
    (FileNotFoundError(errno.ENOENT, "no", THERE), MissingError),
    (FileNotFoundError("Object gs://bucket/x not found."), MissingError),
    (OSError(errno.EIO, "no", THERE), UnreachableError),
    (PermissionError(errno.EACCES, "no", "/cache/mined/x"), UnreachableError),
]


@pytest.mark.parametrize(("error", "kind"), REFUSALS)
@pytest.mark.parametrize("remote", ["s3://bucket/plain", "/mnt/corpus", "/cache"])
def test_the_disk_is_told_from_the_store(error, kind, remote):
    assert store_errors.kind_of(error, "/cache/mine", remote) is kind


def test_a_store_in_the_caches_own_folder_is_a_store():
    error = FileNotFoundError(errno.ENOENT, "no", "/cache/mine/source/x")
    assert store_errors.kind_of(error, "/cache/mine", "/cache/mine/source") is MissingError


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a mistake"),
        MemoryError("none"),
        ImportError("no such module"),
        ValueError("wrong"),
    ],
)
def test_what_is_not_the_stores_keeps_its_name(tmp_path, proxy, monkeypatch, error):
    """Once, and as it was raised."""
    data, asked = (
        TeachingDataset(remote="s3://bucket/zipped", local=str(tmp_path / "cache"), batch_size=4),
        [],
    )

    def fail(*_):
        asked.append(1)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(type(data.streams[0]._downloader), "download", fail)
        with pytest.raises(type(error)) as caught:
            data[0]
    assert caught.value is error and len(asked) == 1
    assert data._shard_states[0] == _ShardState.REMOTE
    if isinstance(error, (MemoryError, ImportError)):  # in decompressing: the file is not to blame
        with monkeypatch.context() as patched:
            patched.setattr(streaming.base.stream, "decompress", fail)
            with pytest.raises(type(error)):
                data[0]
        assert len(asked) == 2 and shards_in(tmp_path / "cache") == ["shard.00000.mds.zstd"]
    assert data[0]["id"] == 0


def test_missing_credentials_of_gcs_are_named():
    class DefaultCredentialsError(Exception):  # google.auth's
        pass

    with pytest.raises(ValueError) as caught:
        try:
            raise DefaultCredentialsError
        except DefaultCredentialsError:
            raise ValueError("Either set the environment variables `GCS_KEY` ...")  # noqa: B904 (as Streaming does)
    assert store_errors.is_of_a_store(caught.value)
    assert store_errors.kind_of(caught.value) is DeniedError


@pytest.mark.parametrize("workers", [0, 3])
def test_a_cache_smaller_than_a_window(tmp_path, buckets, proxy, workers):
    """The least that Streaming allows, four shards where a window reads from all twelve: shards are
    got again and again, the lessons are the same.
    """
    expected = taught_run(buckets / "bucket" / "plain", None, workers=0, window=16)
    index = (buckets / "bucket" / "plain" / "index.json").stat().st_size
    limit = index + 4 * 448
    settings = {"window": 16, "cache_limit": limit, "predownload": 4}
    assert (
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=workers, **settings) == expected
    )
    assert max(proxy.gets().values()) > 1
    # And what each process is just fetching
    assert len(shards_in(tmp_path / "cache")) <= 4 + max(1, workers)


def test_nothing_to_evict_is_named(tmp_path, proxy, monkeypatch):
    """All of the cache is taken by what cannot be evicted; the lock is given back."""
    data = TeachingDataset(
        remote="s3://bucket/plain", local=str(tmp_path / "cache"), batch_size=4, cache_limit="8kb"
    )
    data.cache_limit = data.cache_usage + 100
    for _ in range(2):
        with pytest.raises(
            CacheLimitError,
            match=r"shard 0 .*needs \d+ bytes of the cache, cache_limit is .*raise cache_limit",
        ):
            data[0]
    data.cache_limit = data.cache_usage + 3000
    assert data[0]["id"] == 0


def test_waiting_for_room_ends(tmp_path, proxy):
    """Everything in the cache is being fetched, by processes that do not come to an end."""
    import time

    import numpy as np

    settings = {"download_retry": 1, "cache_limit": "8kb"}
    data = TeachingDataset(
        remote="s3://bucket/plain", local=str(tmp_path / "cache"), batch_size=4, **settings
    )
    data.streams[0].download_timeout = 0.5
    data.cache_limit = data.cache_usage + 100
    data._shard_states[1] = _ShardState.PREPARING
    data._shard_access_times[1] = np.uint64(time.time_ns())
    with pytest.raises(
        CacheLimitError, match="no room in the cache for .*being filled .*raise cache_limit"
    ):
        data[0]


def test_what_has_no_remote_is_never_evicted(tmp_path, buckets, proxy):
    """Streaming 0.13 deletes it: it would be the only copy."""
    import shutil

    own = tmp_path / "own"
    shutil.copytree(buckets / "bucket" / "hashed", own)
    before = shards_in(own)
    streams = [
        Stream(local=str(own)),
        Stream(remote="s3://bucket/plain", local=str(tmp_path / "cache")),
    ]
    limit = sum(path.stat().st_size for path in own.iterdir()) + 12_000
    data = TeachingDataset(streams=streams, batch_size=4, cache_limit=limit)
    data.cache_limit = data.cache_usage + 4 * 448
    assert [int(data[i]["id"]) for i in range(2 * SAMPLES)] == 2 * list(range(SAMPLES))
    assert shards_in(own) == before
    assert len(shards_in(tmp_path / "cache")) <= 4


SECRET = "PLANTED-9f8e7d6c5b4a3210"


@pytest.mark.parametrize("fault", ["refused", "denied", "reset", "gone", "echoed"])
def test_no_secret_in_messages_or_logs(tmp_path, proxy, monkeypatch, caplog, capfd, fault):
    """Planted in the key, the secret, the session's token, and in the endpoint's user and
    password.
    """
    endpoint = (
        proxy.url.replace("://", f"://user:{SECRET}@")
        if fault != "gone"
        else f"http://u:{SECRET}@127.0.0.1:9"
    )
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_ACCOUNT_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
    rule = {
        "refused": {"kind": "status", "status": 403, "methods": ["HEAD"]},
        "denied": {"kind": "status", "status": 400, "methods": ["HEAD"]},
        "reset": {"kind": "reset"},
        "gone": {"kind": "none"},
        "echoed": {
            "kind": "status",
            "status": 409,
            "message": f"key {SECRET}-AWS_SESSION_TOKEN and sig={SECRET} are bad",
        },
    }[fault]
    proxy.faults(rule | {"match": "index"}, rule)
    with caplog.at_level(logging.INFO), pytest.raises(StoreError) as caught:
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=0, download_retry=1)
    import traceback

    told = (
        "".join(traceback.format_exception(caught.value))
        + caplog.text
        + "".join(capfd.readouterr())
    )
    assert "s3://bucket/plain" in told
    assert SECRET not in told
    assert isinstance(
        caught.value, DeniedError if fault in ("refused", "denied") else UnreachableError
    )


def test_a_servers_answer_is_masked_on_one_line():
    said = f"GET https://me:{SECRET}@host/x?sig={SECRET}&X-Amz-Signature={SECRET}&b=1\nno"
    text = str(store_errors.store_error(OSError(said), "stream 0"))
    assert SECRET not in text and "\n" not in text
    assert "@host/x?" in text and "&b=1 no" in text


def test_credentials_never_given_are_named(tmp_path, proxy, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    proxy.faults({"kind": "status", "status": 403, "methods": ["HEAD"]})  # the bucket is not public
    with pytest.raises(
        DeniedError, match=r"index.json of stream 0 .*NoCredentialsError.*check the credentials"
    ):
        TeachingDataset(
            remote="s3://bucket/plain",
            local=str(tmp_path / "cache"),
            batch_size=4,
            download_retry=1,
        )
