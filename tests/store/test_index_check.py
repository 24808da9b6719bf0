"""What an index says of its shards, against the few values that are possible.

What a data set refuses is in ``tests/system/test_safety.py``.
"""

import copy
from types import SimpleNamespace

import pytest
from corpora import write_ids
from hypothesis import given
from hypothesis import strategies as st
from streaming import Stream
from streaming.base.world import World

from attent_stream.store.index_check import check_shards, check_stream


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = write_ids(tmp_path_factory.mktemp("index") / "data", 150)
    return Stream(local=folder, split="").get_shards(World(1, 1, 1, 0), False)


def changed(shards, number, **info):
    """The readers with another file in one of them."""
    shards = [copy.copy(shard) for shard in shards]
    raw = shards[number].file_pairs[0][0]
    file = SimpleNamespace(basename=raw.basename, bytes=raw.bytes, hashes={}) if info else raw
    vars(file).update(info)
    shards[number].file_pairs = [(file, None)]
    return shards


def test_streamings_own_indices_are_taken(shards):
    check_shards(shards, "stream 0", False)


@given(name=st.text(st.sampled_from("ab./\\\0"), max_size=6))
def test_names_stay_in_the_folder(shards, name):
    """A name is taken if and only if each folder of it is an ordinary one."""
    fine = all(part.strip("ab.") == "" and part not in ("", ".", "..") for part in name.split("/"))
    try:
        check_shards(changed(shards, 1, basename=name), "stream 3", False)
    except ValueError as error:
        assert not fine and "stream 3: shard 1 of index.json: expected the name" in str(error)
    else:
        assert fine


@pytest.mark.parametrize("name", [None, 3, "a" * 256, "é" * 128, "index.json", "x/index.json"])
def test_names_that_are_none(shards, name):
    with pytest.raises(ValueError, match="shard 0 of index.json: expected the name of a shard"):
        check_shards(changed(shards, 0, basename=name), "stream 0", False)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, None, (1 << 32) + 1])
def test_sizes_that_are_impossible(shards, size):
    with pytest.raises(ValueError, match="to have 1 to 4294967296 bytes"):
        check_shards(changed(shards, 2, bytes=size), "stream 0", False)


def test_counts_fit_the_bytes(shards):
    shards = changed(shards, 0)
    size = shards[0].file_pairs[0][0].bytes
    shards[0].samples = size // 4
    check_shards(shards, "stream 0", False)
    shards[0].samples += 1
    with pytest.raises(ValueError, match=f"expected 0 to {size // 4} samples in {size} bytes"):
        check_shards(shards, "stream 0", False)


def test_the_stream_keeps_its_readers_once(tmp_path):
    stream = Stream(local=write_ids(tmp_path / "data", 20), split="")
    world = World(1, 1, 1, 0)
    check_stream(stream, 0, world, False)
    first, second = (stream.get_shards(world, False) for _ in range(2))
    assert first is not second and len(first) == len(second)
