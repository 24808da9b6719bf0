"""A fetch onto a local disk that cannot take it, and errors that are not the store's."""

import errno
import os
import subprocess

import pytest
import streaming.base.stream
from stores import SAMPLES, shards_in
from streaming.base.dataset import _ShardState

from attent_stream import TeachingDataset
from attent_stream.base.errors import CacheFolderError, DiskFullError
from attent_stream.store import fetch
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
