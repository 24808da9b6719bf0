"""Readers that are made where they are used, against lists of readers."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indices import entry, write_index

from attent_stream.store import lazy_shards
from attent_stream.store.index_entries import read_table
from attent_stream.store.lazy_shards import LazyShards, ShardList


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    table = read_table(write_index(folder, [entry(number) for number in range(12)]))
    return LazyShards(table, str(folder), "")


def names(readers) -> list[str]:
    return [reader.raw_data.basename for reader in readers]


def test_a_reader_that_is_used_is_kept(shards, monkeypatch):
    assert shards[3] is shards[3] and names([shards[-1]]) == ["shard.00011.mds"]
    assert names(shards[2:9:3]) == names(list(shards)[2:9:3])
    for at in (12, -13):
        with pytest.raises(IndexError):
            shards[at]
    monkeypatch.setattr(lazy_shards, "_HELD", 2)
    for number in range(12):
        assert shards[number].samples == 16 + number % 3 and len(shards._held) <= 12
    copy = pickle.loads(pickle.dumps(shards))
    assert names(copy) == names(shards) and not hasattr(copy[0], "nothing")


def test_threads_may_share_a_reader(tmp_path):
    table = read_table(write_index(tmp_path, [entry(number) for number in range(2000)]))
    shards, before = LazyShards(table, str(tmp_path), ""), sys.getswitchinterval()

    def read() -> list[str]:
        return [shards[number].file_pairs[0][0].basename for number in range(2000)]

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = [one.result() for one in [threads.submit(read) for _ in range(4)]]
    finally:
        sys.setswitchinterval(before)
    assert found == [list(table.raw_names)] * 4


@given(st.lists(st.integers(0, 5), max_size=4), st.data())
def test_the_shards_of_streams_are_one_list(shards, counts, data):
    parts = [shards[:count] for count in counts]
    joined, expected = ShardList(), []
    for part in parts:
        joined += part
        expected += part
    assert len(joined) == len(expected) and names(joined) == names(expected)
    first, last = (data.draw(st.integers(-25, 25)) for _ in range(2))
    step = data.draw(st.sampled_from([1, 2, -1]))
    assert names(joined[first:last:step]) == names(expected[first:last:step])
    if -len(expected) <= first < len(expected):
        assert names([joined[first]]) == names([expected[first]])
    else:
        with pytest.raises(IndexError):
            joined[first]
    assert joined.raw_size() == sum(reader.get_raw_size() for reader in expected)
    assert len(list(joined.stored_hashes())) == len(expected)
    assert len(joined.examples()) == len(expected)


def test_a_whole_stream_stays_lazy(shards):
    joined = ShardList([shards[:2], shards])
    assert joined[2:14]._parts == [shards] and ShardList([shards])[0:12]._parts == [shards]
    assert len(ShardList([shards]).examples()) == 1
    assert ShardList([[], shards])._parts == [shards]
