"""One table for a node: made once, mapped by others, never trusted where it may be another's."""

import os

import pytest
from indices import entry, write_index

from attent_stream.store import node_index
from attent_stream.store.node_index import node_table


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index that counts as large."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(node_index, "_SHARED", 0)
    return write_index(tmp_path / "data", [entry(number) for number in range(9)])


def tables(index):
    return sorted((index.parents[1] / "tmp").glob("attent_index_*/*.table"))


def test_the_second_process_reads_no_index(index, monkeypatch):
    first = node_table(index)
    monkeypatch.setattr(node_index, "read_table", None)
    second = node_table(index)
    assert list(second.raw_names) == list(first.raw_names) and len(second) == 9
    (path,) = tables(index)
    assert second.path == path and path.parent.stat().st_mode & 0o077 == 0


def test_another_index_has_another_table(index):
    node_table(index)
    before = tables(index)
    write_index(index.parent, [entry(number) for number in range(8)])
    assert len(node_table(index)) == 8
    assert len(tables(index)) == 1 and tables(index) != before


@pytest.mark.parametrize("left", [-9, 0])
def test_a_damaged_table_is_made_again(index, left):
    node_table(index)
    (path,) = tables(index)
    path.write_bytes(path.read_bytes()[:left])
    assert len(node_table(index)) == 9 and node_table(index).path == path


def test_an_index_that_looks_the_same_has_another_table(index):
    before, looks = node_table(index), index.stat()
    text = index.read_text().replace("shard.00003", "shard.00103")
    index.unlink()
    index.write_text(text)
    os.utime(index, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    assert index.stat().st_size == looks.st_size
    assert list(node_table(index).raw_names) != list(before.raw_names)


def test_tables_that_were_not_used_for_long_are_removed(index, tmp_path):
    node_table(index)
    (old,) = tables(index)
    os.utime(old, (0, 0))
    node_table(write_index(tmp_path / "other", [entry(0)]))
    assert old not in tables(index) and len(tables(index)) == 1


@pytest.mark.parametrize("kind", ["open folder", "no folder", "no room"])
def test_what_cannot_be_shared_is_read(index, monkeypatch, kind):
    node_table(index)
    (path,) = tables(index)
    if kind == "open folder":
        path.parent.chmod(0o770)
    elif kind == "no folder":
        monkeypatch.setattr("tempfile.tempdir", str(index))
    else:
        path.unlink()
        monkeypatch.setattr(node_index.IndexTable, "save", full)
    found = node_table(index)
    assert len(found) == 9 and found.path is None


def full(table, path):
    raise OSError(28, os.strerror(28))


def test_a_small_index_is_not_shared(index, monkeypatch):
    monkeypatch.setattr(node_index, "_SHARED", 1 << 20)
    assert len(node_table(index)) == 9 and not tables(index)


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": -1},
        {"samples": 1025},
        {"raw_data": {"basename": "a", "bytes": 0, "hashes": {}}},
        {"raw_data": {"basename": "a", "bytes": 2**33, "hashes": {}}},
        {"raw_data": {"basename": "../a", "bytes": 4096, "hashes": {}}},
        {"raw_data": {"basename": "index.json", "bytes": 4096, "hashes": {}}},
        {"zip_data": {"basename": "", "bytes": 4, "hashes": {}}},
        {"zip_data": {"basename": "/a", "bytes": 4, "hashes": {}}},
        {"zip_data": {"basename": "a", "bytes": -1, "hashes": {}}},
        {"zip_data": {"basename": "a", "bytes": 2**41, "hashes": {}}},
        {"size_limit": -3},
        {"samples": "3"},
    ],
)
def test_what_is_not_sound_is_not_a_table(index, bad):
    write_index(index.parent, [entry(0), entry(1, **bad)])
    assert node_table(index) is None and not tables(index)
