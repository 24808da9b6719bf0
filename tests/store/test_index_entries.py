"""Indices that are read entry by entry, against Streaming's own readers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indices import KIND, entry, write_index
from streaming.base.format.mds import MDSReader

from attent_stream.store import index_entries
from attent_stream.store.index_entries import UnusualIndexError, read_table
from attent_stream.store.lazy_shards import LazyShards

ONE = json.dumps(entry(0))
FILE = st.fixed_dictionaries(
    {
        "basename": st.text(min_size=1, max_size=9),
        "bytes": st.integers(1, 2**40),
        "hashes": st.dictionaries(st.sampled_from(["sha1", "xxh64"]), st.text(max_size=4)),
    }
)
ENTRIES = st.lists(
    st.builds(
        lambda samples, raw, zipped, columns: entry(
            0,
            samples=samples,
            raw_data=raw,
            zip_data=zipped,
            compression=zipped and "zstd:3",
            column_names=columns,
            column_encodings=["int"] * len(columns),
            column_sizes=[8] * len(columns),
        ),
        st.integers(0, 2**40),
        FILE,
        st.none() | FILE,
        st.sampled_from([["a"], ["a", "b"]]),
    ),
    min_size=1,
    max_size=9,
)


@given(entries=ENTRIES, chunk=st.integers(32, 300), indent=st.sampled_from([None, 1]), merged=...)
def test_shards_are_those_of_streaming(tmp_path_factory, entries, chunk, indent, merged: bool):
    path = tmp_path_factory.mktemp("index") / "index.json"
    index = {"shards": entries, "version": 2}  # MDSWriter's; merge_index writes the version first
    path.write_text(json.dumps(dict(sorted(index.items(), reverse=merged)), indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_entries, "_CHUNK", chunk)
        shards = LazyShards(read_table(path), str(path.parent), "train")
    stock = [MDSReader.from_json(str(path.parent), "train", one) for one in entries]
    assert [len(shard) for shard in shards] == [len(shard) for shard in stock]
    for mine, theirs in zip(shards, stock, strict=True):
        assert mine.file_pairs == theirs.file_pairs
        assert {n: v for n, v in vars(mine).items() if n != "_lazy"} == vars(theirs)
    stored = [(shard.zip_data or shard.raw_data).hashes for shard in stock]
    assert list(shards.stored_hashes()) == stored
    kinds = {tuple(shard.column_names) for shard in stock}
    assert {tuple(shard.column_names) for shard in shards.examples()} == kinds


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry(0, format="json")],
        [entry(0, version=1)],
        [entry(0, more=1)],
        [entry(0, samples=True)],
        [entry(0, samples=1.0)],
        [entry(0, samples=2**70)],
        [entry(0, raw_data=None)],
        [entry(0, raw_data={"basename": 3, "bytes": 1, "hashes": {}})],
        [entry(0, raw_data={"basename": "a", "bytes": 1, "hashes": []})],
        [entry(0, zip_data={"basename": "a", "bytes": 1})],
        [entry(0), {**KIND}],
        [entry(0), 3],
    ],
)
def test_what_streaming_has_to_read_is_left_to_it(tmp_path, entries):
    with pytest.raises(UnusualIndexError):
        read_table(write_index(tmp_path, entries))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "shards": []}',
        '{"shards": [{"a"',
        '{"shards": [3]',
        f'{{"shards": [{ONE} {ONE}], "version": 2}}',
        f'{{"shards": [{ONE},, {ONE}], "version": 2}}',
        f'{{"shards": [,{ONE}], "version": 2}}',
        f'{{"shards": [{ONE},], "version": 2}}',
        f'{{"shards": [{ONE}], "shards": [{ONE}], "version": 2}}',
        '{"shards": ["' + "a" * 3000,
    ],
)
def test_no_index_is_left_to_streaming(tmp_path, text, monkeypatch):
    monkeypatch.setattr(index_entries, "_CHUNK", 64)
    monkeypatch.setattr(index_entries, "_LONGEST", 1000)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UnusualIndexError):
        read_table(tmp_path / "index.json")


def test_another_version_is_left_to_streaming(tmp_path):
    with pytest.raises(UnusualIndexError, match="version 3"):
        read_table(write_index(tmp_path, [entry(0)], version=3))
