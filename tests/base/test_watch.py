"""Errors that name what is missing: workers, descriptors and ranks.

Real processes that are killed are in ``tests/system/test_faults_*.py``.
"""

import errno
import multiprocessing
import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
from torch import distributed as dist

from attent_stream.base import watch
from attent_stream.base.errors import AttentError, OpenFilesError
from attent_stream.base.open_files import EXIT_CODE
from attent_stream.base.watch import collective, here, next_batch, open_files_named, parent_gone


class Batches:
    """A DataLoader's iterator that raises, with workers of given exit codes."""

    def __init__(self, error, *codes):
        self.error = error
        self._workers = [SimpleNamespace(exitcode=code, pid=7, sentinel=0) for code in codes]

    def __next__(self):
        if isinstance(self.error, Exception):
            raise self.error
        return self.error


def test_here_is_the_rank_of_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "5")
    assert here().startswith("rank 5 (")


def test_a_batch_passes_through():
    assert next_batch(Batches("batch", None, 0), 1.0) == "batch"
    with pytest.raises(StopIteration):
        next_batch(iter(()), 1.0)


@pytest.mark.parametrize(
    ("batches", "kind", "said"),
    [
        (Batches("batch", None, -9), AttentError, r"worker \(pid 7\) ended with exit code -9"),
        (Batches("batch", EXIT_CODE), OpenFilesError, "ran out of file descriptors"),
        (Batches(RuntimeError("DataLoader timed out")), AttentError, "sent nothing for 3 s"),
        (
            Batches(RuntimeError("DataLoader worker (pid 3) is\nkilled")),
            AttentError,
            r"worker \(pid 3\) is killed; if nobody killed it, .* lower num_workers",
        ),
        (Batches(RuntimeError("a mistake")), RuntimeError, "^a mistake$"),
    ],
)
def test_lost_workers_are_named(batches, kind, said):
    with pytest.raises(RuntimeError, match=said) as caught:
        next_batch(batches, 3.0)
    assert type(caught.value) is kind


def test_descriptors_are_named_and_other_errors_kept():
    with pytest.raises(OpenFilesError, match="ulimit -n"), open_files_named():
        raise OSError(errno.EMFILE, "x")
    with pytest.raises(OSError, match="bad"), open_files_named():
        raise OSError(errno.EIO, "bad")


class Store:
    """A job's store that only some ranks answer."""

    def __init__(self, answered):
        self.answered = {f"attent/here/{rank}" for rank in answered}

    def set(self, key, value):
        self.answered.add(key)

    def wait(self, keys, timeout):
        assert timeout == timedelta(seconds=5)
        if not self.answered.issuperset(keys):
            raise RuntimeError("timeout")

    def check(self, keys):
        return self.answered.issuperset(keys)


@pytest.mark.parametrize(
    ("world", "answered", "said"),
    [
        (3, [1], r"1 of 3 ranks did not answer within 5 s \(rank 2\); look"),
        (3, [1, 2], "the connection to a rank was lost for a moment; look"),
        (20, [], r"19 of 20 ranks .* \(rank 1, 2, 3, 4, 5, 6, 7, 8 and 11 more\); look"),
        (2, None, "rank 0, which holds the job's store, has ended; look"),
    ],
)
def test_missing_ranks_are_named(monkeypatch, world, answered, said):
    def store():
        if answered is None:
            raise RuntimeError("refused")
        return Store(answered)

    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", store)
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    said = f"could not finish the sum because {said}"
    with pytest.raises(AttentError, match=said) as caught, collective("the sum"):
        raise RuntimeError("[gloo/transport] Connection\nclosed")
    assert "dist_timeout" in str(caught.value) and "Connection closed)" in str(caught.value)


def test_other_errors_pass(monkeypatch):
    monkeypatch.setattr(watch, "_missing", None)
    for error in (ValueError("x"), RuntimeError("x"), AttentError("gloo")):
        with pytest.raises(type(error)) as caught, collective("the sum"):
            raise error
        assert caught.value is error


def orphan(pipe, done):
    """In a child: start a grandchild, and end."""
    context = multiprocessing.get_context("fork")
    context.Process(target=report, args=(pipe, done)).start()
    pipe.send(parent_gone())
    os._exit(0)


def report(pipe, done):
    watch.leave_with_parent(interval=0.01)
    pipe.send(os.getpid())
    done.wait(60)


@pytest.mark.processes
def test_a_process_ends_with_its_parent():
    assert not parent_gone()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    done = context.Event()
    child = context.Process(target=orphan, args=(theirs, done))
    child.start()
    theirs.close()
    said = [ours.recv(), ours.recv()]
    assert False in said and len(set(said)) == 2
    child.join(60)
    with pytest.raises(EOFError):  # all who could send have ended
        ours.poll(60) and ours.recv()
