"""Tables of shards in a file: whole, or refused."""

import pickle

import numpy as np
import pytest
from indices import entry, write_index

from attent_stream.store.index_entries import read_table
from attent_stream.store.index_table import BadTableError, IndexTable, Texts


@pytest.fixture
def table(tmp_path):
    hashed = {"basename": "sub/a", "bytes": 99, "hashes": {"sha1": "ü"}}
    entries = [entry(number) for number in range(50)]
    entries[7] = entry(7, raw_data=hashed, zip_data=hashed, compression="zstd")
    return read_table(write_index(tmp_path / "data", entries))


def shown(table: IndexTable) -> dict:
    return {
        name: list(one) if isinstance(one, (Texts, np.ndarray, tuple)) else one
        for name, one in vars(table).items()
        if name != "path"
    }


def test_a_file_is_what_was_saved(table, tmp_path):
    table.save(tmp_path / "one.table")
    found = IndexTable.load(tmp_path / "one.table")
    assert shown(found) == shown(table) and len(found) == 50
    assert found.raw_names[7] == "sub/a" and found.raw_names[49] == "shard.00049.mds"
    assert [path.name for path in tmp_path.glob("*.half")] == []
    for one in (found, table):
        assert shown(pickle.loads(pickle.dumps(one))) == shown(table)


def test_every_damage_is_seen(table, tmp_path):
    path = tmp_path / "one.table"
    table.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(200):
        at = int(rng.integers(len(whole)))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :])
        try:  # bytes between the arrays mean nothing
            found = shown(IndexTable.load(path))
        except BadTableError:
            continue
        assert found == shown(table)
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BadTableError):
            IndexTable.load(path)
