"""Shards that stay open are read as Streaming reads them."""

import os
import pickle
import threading
from pathlib import Path

import pytest
from corpora import write_ids
from streaming import Stream
from streaming.base.world import World

from attent_stream.store.mds_reader import ShardFile
from attent_stream.store.open_shards import OpenShards
from attent_stream.store.readers import read_shards

WORLD = World(1, 1, 1, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ids") / "data"
    write_ids(folder, 200)
    return folder


def both(folder):
    """Streaming's readers and ours."""
    stream = Stream(local=str(folder), split="")
    return stream.get_shards(WORLD, False), read_shards(stream, WORLD, False)


def places(shards):
    return [(shard, at) for shard in range(len(shards)) for at in range(shards[shard].samples)]


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("limit", [1, 3, 64])
def test_samples_are_streamings_in_any_order(folder, limit):
    stock, ours = both(folder)
    assert len(stock) > 4
    held, before = OpenShards(limit), open_files()
    for shard, at in sorted(places(stock), key=lambda place: hash((place, 7))):
        assert held.get_item(ours, shard, at) == stock[shard].get_item(at)
        assert open_files() <= before + limit
    del held
    assert open_files() == before


def test_readers_of_other_kinds_are_asked(folder):
    stock, _ = both(folder)
    held, before = OpenShards(), open_files()
    assert held.get_item(stock, 1, 0) == stock[1].get_item(0) and open_files() == before


def test_a_copy_opens_its_own(folder):
    _, ours = both(folder)
    held = OpenShards(2)
    held.get_item(ours, 0, 0)
    copy = pickle.loads(pickle.dumps(held))
    assert not copy._held and copy.get_item(ours, 0, 1) == held.get_item(ours, 0, 1)


def test_a_shard_that_is_gone_is_read_as_long_as_it_is_open(tmp_path):
    write_ids(tmp_path / "data", 200)
    stock, ours = both(tmp_path / "data")
    held = OpenShards()
    first = held.get_item(ours, 0, 0)
    for path in (tmp_path / "data").glob("shard*"):
        path.unlink()
    assert held.get_item(ours, 0, 0) == first
    with pytest.raises(FileNotFoundError):
        held.get_item(ours, 1, 0)


def test_out_of_files_all_are_closed_and_one_is_opened(folder, monkeypatch):
    _, ours = both(folder)
    held, real = OpenShards(), os.open
    for shard in range(3):
        held.get_item(ours, shard, 0)

    def full(path, *rest, **more):
        if held._held:
            raise OSError(24, "Too many open files", path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    assert held.get_item(ours, 3, 0) and list(held._held) == [3]
    held._held.clear()
    monkeypatch.setattr(os, "open", lambda path, *rest: (_ for _ in ()).throw(OSError(24, path)))
    with pytest.raises(OSError, match="24"):
        held.get_item(ours, 3, 0)


def test_a_thread_reads_on_what_another_has_closed(folder):
    stock, ours = both(folder)
    held, wrong = OpenShards(1), []

    def read(seed):
        for shard, at in sorted(places(stock), key=lambda place: hash((place, seed))):
            if held.get_item(ours, shard, at) != stock[shard].get_item(at):
                wrong.append((shard, at))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_is_not_there_leaves_nothing_to_close(tmp_path):
    with pytest.raises(FileNotFoundError):
        ShardFile(str(tmp_path / "none"))
