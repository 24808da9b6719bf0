"""Names of Streaming's shared memory: taken by one job of a node at a time, chosen by its leader.

Each rank of Streaming 0.13 looks for the first free number by itself, and takes it a moment later.
So two jobs that start at once on a node can want the same one. And where another job of the node
ends meanwhile, ranks of one job can find unlike numbers: "shared memory prefix=3 was not registered
by local leader". Here one job takes its names after the other, and the leader's number counts.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import gettempdir
from typing import Any

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, LOCALS, SHM_TO_CLEAN
from streaming.base.shared import SharedMemory
from streaming.base.shared import prefix as streamings
from streaming.base.world import World
from torch import distributed as dist
from torch.distributed import distributed_c10d

from attent_stream.base.node_memory import meet, node_path

PATIENCE = 10.0  # seconds; without the lock, the slower of two jobs takes the next number
_PURPOSE = "the taking of names for shared memory"


@contextmanager
def one_job_at_a_time() -> Iterator[None]:
    """Wait until no other job takes names on this node, at most ``PATIENCE``."""
    lock = names_lock() if World.detect().is_local_leader else None
    try:
        if dist.is_available() and dist.is_initialized():
            meet(_PURPOSE)
        yield
    finally:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # also where a process forked meanwhile has a copy
            os.close(lock)


def names_lock() -> int | None:
    """Lock the folder of the names, which jobs of all users share, whatever their ``TMPDIR``.

    Returns:
        A descriptor to unlock and close, or None after ``PATIENCE`` or where folders cannot be
        locked: then names are taken without a lock.
    """
    try:
        folder = os.open(os.path.dirname(node_path("names")), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    locked = False
    try:
        end = time.monotonic() + PATIENCE
        while not locked and time.monotonic() < end:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                time.sleep(0.01)
    except OSError:
        pass
    finally:
        if not locked:
            os.close(folder)
    return folder if locked else None


def lock_files(number: int) -> list[str]:
    """Return the paths of the lock files that belong to a number."""
    names = (streamings._get_path(number, name) for name in (BARRIER_FILELOCK, CACHE_FILELOCK))
    return [os.path.join(gettempdir(), name) for name in names]


def take_prefix(
    streams_local: list[str], streams_remote: list[str | None], world: World, retry: int = 100
) -> tuple[int, SharedMemory]:
    """Take the number of a data set's names, in place of Streaming's ``get_shm_prefix``.

    All ranks call it together.

    Args:
        streams_local: Each stream's local folder.
        streams_remote: Each stream's remote folder, or None.
        world: The ranks of the job.
        retry: How often the search is repeated where a folder is in use.

    Returns:
        The number and the memory with the folders, the same on all ranks of a node.

    Raises:
        ValueError: Another data set of this node uses one of the folders.
        RuntimeError: Another rank of this node has other folders.
        AttentError: A rank was lost.
    """
    several = dist.is_available() and dist.is_initialized()
    store = _store() if several else None
    if world.ranks_per_node > 1 and store is None:
        return streamings.get_shm_prefix(streams_local, streams_remote, world, retry)
    streamings._check_self(streams_local)
    key, number, memory, fault = f"attent/prefix/{world.node}", 0, None, None
    if world.is_local_leader:
        try:
            number, memory = _registered(streams_local, streams_remote, retry)
        except ValueError as error:
            fault = str(error)
        if store is not None:
            store.set(key, json.dumps([number, fault]))
    if several:
        meet(_PURPOSE)
    if store is not None and not world.is_local_leader:
        number, fault = json.loads(store.get(key))  # set before the ranks met
    if fault is not None:
        raise ValueError(fault)
    return number, _leaders(number, streams_local) if memory is None else memory


def _registered(
    streams_local: list[str], streams_remote: list[str | None], retry: int
) -> tuple[int, SharedMemory]:
    """Take the first number that is free.

    Raises:
        ValueError: Another data set uses one of the folders.
    """
    while True:
        number = _first_free(streams_local, streams_remote, retry)
        while not _is_free(number):
            number += 1
        data = streamings._pack_locals(streams_local, number)
        try:
            memory = SharedMemory(streamings._get_path(number, LOCALS), True, len(data))
        except FileExistsError:  # a job without our lock was faster
            continue
        memory.buf[: len(data)] = data
        return number, memory


def _first_free(streams_local: list[str], streams_remote: list[str | None], retry: int) -> int:
    """Return the largest of the numbers that are the first without one of the names.

    Raises:
        ValueError: Another data set uses one of the folders.
    """
    found = (
        streamings._check_and_find_retrying(streams_local, streams_remote, name, retry)
        for name in SHM_TO_CLEAN
    )
    return max(found)


def _is_free(number: int) -> bool:
    """Whether no name of a number is taken: where a job was killed, some may be left."""
    for name in SHM_TO_CLEAN:
        try:
            SharedMemory(streamings._get_path(number, name), False)
        except FileNotFoundError:
            continue
        except PermissionError:
            return False
        return False
    return not any(map(os.path.exists, lock_files(number)))


def _leaders(number: int, streams_local: list[str]) -> SharedMemory:
    """Open the memory that the leader has made, and check that its folders are this rank's."""
    try:
        memory = SharedMemory(streamings._get_path(number, LOCALS), False)
    except FileNotFoundError:
        theirs = None
    else:
        theirs = streamings._unpack_locals(bytes(memory.buf))
    if theirs != (streams_local, number):
        raise RuntimeError(
            "every rank of a node must use the same local folders for a data set; this rank has "
            f"{streams_local}, and the node's first rank has {theirs[0] if theirs else 'others'}"
        )
    return memory


def _store() -> Any:
    """Return the store by which the ranks have found each other, or None if there is none."""
    find = getattr(distributed_c10d, "_get_default_store", None)
    try:
        return find() if find else None
    except (RuntimeError, ValueError, KeyError):
        return None
