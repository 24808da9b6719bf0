"""The pipe of a DataLoader's workers. Oracle: its size, as the kernel tells it."""

import sys

import pytest
from corpora import write_ids
from torch.utils.data import DataLoader

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.data.pipe import ROOM, widen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux widens pipes")


def room(batches) -> int:
    from fcntl import F_GETPIPE_SZ, fcntl

    return fcntl(batches._worker_result_queue._writer.fileno(), F_GETPIPE_SZ)


def test_it_is_widened_once_and_again():
    batches = iter(DataLoader(range(4), num_workers=1))
    assert room(batches) < ROOM
    for _ in range(2):
        widen(batches)
        assert room(batches) == ROOM
    assert [int(batch) for batch in batches] == [0, 1, 2, 3]


def test_where_it_is_not_allowed_it_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("fcntl.fcntl", refuse)
    batches = iter(DataLoader(range(4), num_workers=1))
    widen(batches)
    monkeypatch.undo()
    assert room(batches) < ROOM and len(list(batches)) == 4


def refuse(*_):
    raise PermissionError(1, "Operation not permitted")


def test_without_workers_there_is_none():
    batches = iter(DataLoader(range(4), num_workers=0))
    widen(batches)
    assert len(list(batches)) == 4


def test_a_loader_widens_its_own(tmp_path):
    folder = write_ids(tmp_path / "data", 8)
    dataset = TeachingDataset(local=folder, batch_size=2)
    loader = TeachingDataLoader(dataset, batch_size=2, num_workers=1, persistent_workers=True)
    for _ in loader:
        assert room(loader._iterator) == ROOM
