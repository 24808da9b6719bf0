"""Readers of shards against Streaming's own."""

from pathlib import Path

import numpy as np
import pytest
from corpora import write_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from streaming import MDSWriter, Stream
from streaming.base.util import merge_index
from streaming.base.world import World

from attent_stream.store.lazy_shards import LazyReader, LazyShards
from attent_stream.store.readers import hand_on, read_shards


def test_readers_are_streamings(tmp_path):
    write_ids(tmp_path / "plain", 60)
    with MDSWriter(
        out=str(tmp_path / "zip"),
        columns={"id": "int"},
        compression="zstd",
        hashes=["sha1"],
        size_limit=600,
    ) as out:
        for number in range(99):
            out.write({"id": number})
    for name in ("plain", "zip"):
        stream, world = Stream(local=str(tmp_path / name), split=""), World(1, 1, 1, 0)
        stock, ours = stream.get_shards(world, False), read_shards(stream, world, False)
        assert len(ours) > 1 and used(ours) == [vars(reader) for reader in stock]
        hand_on(stream, ours)
        assert (
            stream.get_shards(world, False) is ours and stream.get_shards(world, False) is not ours
        )


def used(readers) -> list:
    """What readers have read of their entries."""
    made = [(reader, reader.file_pairs) for reader in readers]
    return [{n: v for n, v in vars(reader).items() if n != "_lazy"} for reader, _ in made]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_in_the_cache_is_streamings(tmp_path, compression):
    """Files that are there, partly there, or of no shard."""
    made = {"columns": {"id": "int"}, "compression": compression, "size_limit": 600}
    with MDSWriter(
        out=(str(tmp_path / "a"), str(tmp_path / "store")), **made, keep_local=True
    ) as out:
        for number in range(99):
            out.write({"id": number})
    folder = tmp_path / "a"
    for number, path in enumerate(sorted(folder.glob("shard*"))):
        if number % 3 == 0:
            path.unlink()
    (folder / "other").write_text("")
    remote = str(tmp_path / "store")
    stream, world = (
        Stream(local=str(folder), remote=remote, split="", keep_zip=True),
        World(1, 1, 1, 0),
    )
    stock, ours = stream.get_shards(world, False), read_shards(stream, world, False)
    usage = [np.full(len(stock), -1), np.full(len(stock), -1)]
    stream.set_up_local(stock, usage[0])
    hand_on(stream, ours)
    stream.set_up_local(ours, usage[1])
    assert (usage[0] == usage[1]).all() and 0 < (usage[0] > 0).sum() < len(stock)
    assert "set_up_local" not in vars(stream)


def test_a_merged_index_is_read_into_a_table(tmp_path):
    for name in "ab":
        write_ids(tmp_path / name, 40)
    merge_index(str(tmp_path))
    stream, world = Stream(local=str(tmp_path), split=""), World(1, 1, 1, 0)
    ours = read_shards(stream, world, False)
    assert isinstance(ours, LazyShards) and used(ours) == [
        vars(reader) for reader in stream.get_shards(world, False)
    ]


COLUMNS = {
    "text": st.text(max_size=20),
    "plain": st.binary(max_size=20),
    "number": st.integers(-(2**40), 2**40),
    "tokens": st.lists(st.integers(0, 65535), min_size=1, max_size=9),
    "fixed": st.lists(st.integers(0, 255), min_size=3, max_size=3),
    "share": st.floats(width=32, allow_nan=False),
    "many": st.integers().map(str),
    "tree": st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
}
ENCODINGS = {
    "text": "str", "plain": "bytes", "number": "int", "tokens": "ndarray:uint16",
    "fixed": "ndarray:uint8:3", "share": "float32", "many": "str_int", "tree": "json",
}  # fmt: skip


@settings(max_examples=30)
@given(st.data())
def test_samples_are_streamings(tmp_path_factory, data):
    names = data.draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    rows = data.draw(
        st.lists(st.fixed_dictionaries({name: COLUMNS[name] for name in names}), min_size=1)
    )
    folder = tmp_path_factory.mktemp("data")
    with MDSWriter(
        out=str(folder), columns={name: ENCODINGS[name] for name in names}, size_limit=4000
    ) as out:
        for row in rows:
            made = {name: row[name] for name in names}
            for name, dtype in (("tokens", np.uint16), ("fixed", np.uint8)):
                if name in made:
                    made[name] = np.array(made[name], dtype)
            if "many" in made:
                made["many"] = int(made["many"])
            out.write(made)
    stream, world = Stream(local=str(folder), split=""), World(1, 1, 1, 0)
    stock, ours = stream.get_shards(world, False), read_shards(stream, world, False)
    assert {type(reader) for reader in ours} == {LazyReader}
    for theirs, mine in zip(stock, ours, strict=True):
        for index in range(len(theirs)):
            np.testing.assert_equal(mine[index], theirs[index])
            assert list(mine[index]) == list(theirs[index])
        for read in (theirs.get_item, mine.get_item):
            with pytest.raises((IndexError, ValueError)):
                read(len(theirs) + 5)


def test_a_file_that_was_cut_short_has_no_sample(tmp_path):
    write_ids(tmp_path / "data", 20)
    stream, world = Stream(local=str(tmp_path / "data"), split=""), World(1, 1, 1, 0)
    reader = read_shards(stream, world, False)[0]
    path = Path(reader.dirname) / reader.split / reader.raw_data.basename
    path.write_bytes(path.read_bytes()[:6])
    with pytest.raises(IndexError, match="sample index 3 is not present in the shard.00000.mds"):
        reader.get_item(3)
