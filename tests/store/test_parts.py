"""Temporary folders of downloads: none is left, and none of another process is removed."""

import os
import time

import pytest
from stores import SAMPLES, opened, read

from attent_stream.store import parts
from attent_stream.store.parts import PARTS


def test_leftovers_of_a_killed_run_are_removed(tmp_path, buckets, proxy):
    part = tmp_path / "cache" / PARTS / "shard.00000.mds.123-0.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    assert read(opened(tmp_path, "s3://bucket/plain")) == list(range(SAMPLES))
    assert not part.exists()


@pytest.mark.parametrize("kind", ["plain", "zipped"])
def test_the_cache_holds_what_the_store_does(tmp_path, buckets, kind):
    """As Streaming's own tests of eviction look at it."""
    source = buckets / "bucket" / kind
    data = opened(tmp_path, source, keep_zip=True)
    assert [int(sample["id"]) for sample in data] == list(range(SAMPLES))
    here = {
        name
        for name in os.listdir(tmp_path / "cache")
        if kind == "plain" or not name.endswith(".mds")
    }
    assert here == set(os.listdir(source))


def test_parts_of_one_file_do_not_meet(tmp_path):
    """One process has finished, and removes its folder, before the other begins to write."""
    one, other = (parts.Part(tmp_path / "new" / "shard.mds") for _ in range(2))
    one.path.write_bytes(b"12345")
    os.replace(one.path, tmp_path / "new" / "shard.mds")
    one.discard()
    other.path.write_bytes(b"67")
    (other.path.parent / "shard.mds.tmp").write_bytes(b"8")
    assert other.arrived == 3
    os.replace(other.path, tmp_path / "new" / "shard.mds")
    other.discard()
    assert os.listdir(tmp_path / "new") == ["shard.mds"]


def test_parts_of_a_killed_run_are_removed_wherever_they_are(tmp_path, buckets):
    cache = tmp_path / "cache"
    old = [parts.Part(folder / "shard.00000.mds") for folder in (cache, cache / "merged")]
    for part in old:
        part.path.write_bytes(b"half")
    (cache / ".attent-parts").mkdir()  # as an older version had it
    new = parts.Part(cache / "shard.00001.mds")
    new.path.write_bytes(b"half")
    os.utime(new.path, (time.time() + 60,) * 2)  # somebody else's, under way
    (cache / ".theirs").mkdir()
    opened(tmp_path, buckets / "bucket" / "plain")
    hidden = sorted(path.name for path in cache.glob(".*"))
    assert hidden == sorted([new.path.parent.name, ".theirs"])
    assert not list((cache / "merged").iterdir())
