"""Data sets that come and go leave no descriptors and no names."""

import contextlib
import gc
import json
import os
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from corpora import write_ids
from ports import free_port
from store_jobs import in_memory, names_of
from streaming.base.dataset import _ShardState

from attent_stream import TeachingDataset
from attent_stream.store import memory_names, shared_memory

pytestmark = pytest.mark.alone


def test_data_sets_that_are_dropped_leave_no_descriptor(zygote, tmp_path):
    folder, report, said = write_ids(tmp_path / "data", 32), tmp_path / "report", tmp_path / "said"
    env = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    assert (
        zygote.start("store_jobs:make_many", folder, str(report), said=said, env=env).wait(300) == 0
    ), said.read_text()
    open_files, left, last = json.loads(report.read_text())
    # One is of Python's own, once there are workers.
    assert max(open_files) - min(open_files) <= 1, open_files
    assert left == []
    assert not set(last) & zygote.shared_memory()
    assert not [
        line
        for line in said.read_text().splitlines()
        if "Traceback" in line or "leaked" in line or "ignored" in line
    ]


def test_jobs_that_start_at_once_take_different_names(zygote, tmp_path):
    """Each has a temporary folder of its own, as launchers of clusters give them."""
    folder = write_ids(tmp_path / "data", 32)
    said = [tmp_path / f"said{job}" for job in range(4)]
    jobs = []
    for job, one in enumerate(said):
        own = tmp_path / f"tmp{job}"
        own.mkdir()
        env = {"TMPDIR": str(own), "OMP_NUM_THREADS": "1"}
        jobs.append(zygote.start("store_jobs:make_at_once", folder, said=one, env=env))
    assert [job.wait(300) for job in jobs] == [0] * 4, [one.read_text() for one in said]


def on_two_ranks(zygote, tmp_path, job: str) -> list:
    """What each rank reports of a job."""
    folder, port = write_ids(tmp_path / "data", 64), free_port()
    env = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    report = [tmp_path / f"report{rank}" for rank in (0, 1)]
    ranks = [
        zygote.start(
            f"store_jobs:{job}",
            *(rank, port, folder, str(report[rank])),
            said=tmp_path / f"said{rank}",
            env=env,
        )
        for rank in (0, 1)
    ]
    for rank in ranks:
        assert rank.wait(120) == 0, rank.said
    return [json.loads(one.read_text()) for one in report]


def test_two_ranks_make_and_drop_data_sets(zygote, tmp_path):
    before = zygote.shared_memory()
    for rank, (open_files, read) in enumerate(on_two_ranks(zygote, tmp_path, "make_on_a_rank")):
        few = [open_files[number] for number in range(rank + 1, 8, 2)]  # without one that is kept
        assert max(few) == min(few) and max(open_files) <= max(few) + 16, open_files
        assert read
    assert zygote.shared_memory() <= before


def test_ranks_agree_on_a_name_while_another_job_ends(zygote, tmp_path):
    """Ranks that looked for a free name before and after that would find unlike ones."""
    (first, own, ids), (_, others, more) = on_two_ranks(zygote, tmp_path, "make_while_another_ends")
    assert own == others > first
    assert sorted(ids + more) == list(range(64))


def test_ranks_are_refused_together(zygote, tmp_path):
    (said, own), (others_said, others) = on_two_ranks(zygote, tmp_path, "make_in_a_folder_in_use")
    assert said == others_said == "Reused local directory"
    assert own == others


def test_the_taking_of_names_is_locked_for_others_and_then_free(tmp_path, monkeypatch):
    folder = write_ids(tmp_path / "data", 32)
    monkeypatch.setattr(memory_names, "PATIENCE", 0.1)
    held = memory_names.names_lock()
    try:
        assert memory_names.names_lock() is None
        data = TeachingDataset(local=folder, batch_size=4)  # after PATIENCE, without the lock
    finally:
        os.close(held)
    assert len(list(data)) == 32
    free = memory_names.names_lock()
    os.close(free)
    assert free is not None


def test_a_name_that_another_job_takes_first_is_left_to_it(tmp_path, monkeypatch):
    """A job of stock Streaming does not wait for the lock."""
    find, theirs = memory_names._first_free, []

    def overtaken(*args):
        number = find(*args)
        if not theirs:
            theirs.append(SharedMemory(f"{number:06}_locals", True, 16))
            theirs[0].buf[:4] = (4).to_bytes(4, "little")
        return number

    monkeypatch.setattr(memory_names, "_first_free", overtaken)
    try:
        data = TeachingDataset(local=write_ids(tmp_path / "data", 32), batch_size=4)
        assert f"{data.shared_prefix - 1:06}_locals" == theirs[0].name
        assert len(list(data)) == 32
    finally:
        theirs[0].close()
        theirs[0].unlink()


def test_a_number_of_which_some_names_are_left_is_not_taken(tmp_path, monkeypatch):
    """A killed job may leave some. Then the search can end at a number that is in use."""
    folder = write_ids(tmp_path / "data", 32)
    data = TeachingDataset(local=folder, batch_size=4)
    number = data.shared_prefix
    left = SharedMemory(f"{number + 1:06}_resume", True, 8)
    monkeypatch.setattr(memory_names, "_first_free", lambda *args: number)
    try:
        assert TeachingDataset(local=folder, batch_size=4).shared_prefix > number + 1
    finally:
        left.close()
        left.unlink()
    assert len(list(data)) == 32


def test_ranks_with_unlike_folders_are_told_so():
    memory = SharedMemory("999999_locals", True, 64)
    try:
        memory.buf[:12] = (12).to_bytes(4, "little") + b"a\0999999"
        with pytest.raises(RuntimeError, match="same local folders.*'b'.*'a'"):
            memory_names._leaders(999999, ["b"])
        with pytest.raises(RuntimeError, match="same local folders.*others"):
            memory_names._leaders(999998, ["b"])
    finally:
        memory.close()
        memory.unlink()


def test_a_forked_process_closes_nothing_of_its_parents(tmp_path):
    data = TeachingDataset(local=write_ids(tmp_path / "data", 32), batch_size=4)
    names = names_of(data) & in_memory()
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            shared_memory._close(data._memory, data._locals_shm, [], True, os.getppid())
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(names) == 6 and names <= in_memory()
    assert len(list(data)) == 32
    del data
    gc.collect()
    assert not names & in_memory()


def test_a_rank_that_drops_its_data_set_leaves_it_to_the_others(tmp_path, monkeypatch):
    """On a node of several ranks names stay until Python ends, descriptors do not."""
    ended = []
    monkeypatch.setattr("streaming.base.shared.memory.atexit.register", ended.append)
    data = TeachingDataset(local=write_ids(tmp_path / "data", 32), batch_size=4)
    names, before = names_of(data) & in_memory(), len(os.listdir("/proc/self/fd"))
    folders = bytes(data._locals_shm.buf[:4])
    shared_memory._close(data._memory, data._locals_shm, [], False, os.getpid())
    assert len(names) == 6 and names <= in_memory()
    assert len(os.listdir("/proc/self/fd")) == before - 12
    with open(f"/dev/shm/{data.shared_prefix:06}_locals", "rb") as file:
        assert file.read(4) == bytes(4) != folders  # so that the folders can be used by another
    for cleanup in ended:
        cleanup()
    assert not names & in_memory()


def test_memory_that_is_still_looked_at_is_closed_later(tmp_path):
    folder = write_ids(tmp_path / "data", 32)
    data = TeachingDataset(local=folder, batch_size=4)
    states, before = (
        np.frombuffer(data._shard_states.shm.buf, np.uint8),
        len(os.listdir("/proc/self/fd")),
    )
    names = names_of(data)
    del data
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 10
    assert not names & in_memory() and states[0] == _ShardState.LOCAL
    del states
    data = TeachingDataset(local=folder, batch_size=4)
    del data
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 12


def test_a_refused_data_set_leaves_no_descriptor(tmp_path):
    """Streaming looks at all memory a hundred times, in case a folder in use becomes free."""
    source = write_ids(tmp_path / "data", 32)
    data = TeachingDataset(remote=source, local=str(tmp_path / "cache"), batch_size=4)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="Reused local directory"):
        TeachingDataset(remote=source, local=str(tmp_path / "cache"), batch_size=4)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list(data)) == 32
