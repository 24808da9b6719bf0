"""Memory that the ranks of a node share: one rank makes a file, all map it, then it is unlinked."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import BinaryIO

from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.base.watch import collective, here

_FOLDER = "/dev/shm"


def node_path(name: str) -> str:
    """Return the path for a shared file: in the node's memory, or else on its disk."""
    return os.path.join(_FOLDER if os.path.isdir(_FOLDER) else tempfile.gettempdir(), name)


@contextmanager
def node_file(path: str) -> Iterator[BinaryIO]:
    """Open an empty file that is unlinked on exit; mappings of it keep the memory.

    Args:
        path: From ``node_path``: the same on all ranks of the node, and unique to the job.
    """
    if os.path.exists(path):
        os.unlink(path)  # left by a run that was killed together with its resource tracker
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
    name = f"/{os.path.basename(path)}"
    in_memory = path.startswith(_FOLDER)
    if in_memory:
        # The tracker unlinks the file if this process is killed.
        resource_tracker.register(name, "shared_memory")
    try:
        with file:
            yield file
    finally:
        os.unlink(path)
        if in_memory:
            resource_tracker.unregister(name, "shared_memory")


def meet(purpose: str) -> None:
    """Wait until all ranks are here; ``purpose`` is for the errors of ``collective``."""
    with collective(purpose):
        dist.barrier()


@contextmanager
def mapping(purpose: str) -> Iterator[None]:
    """Enter when the leader has made the file, and exit when all ranks have mapped it."""
    meet(purpose)
    yield
    meet(purpose)


def mapped(path: str) -> mmap.mmap:
    """Map a file read-only."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def node_memory(name: str, size: int, *, leader: bool, what: str, advice: str) -> mmap.mmap:
    """Allocate zeroed memory that the leader may write and all ranks of the node may read.

    All ranks of the job must call it together. The memory is freed with the last mapping.

    Args:
        name: Of the file: the same on all ranks of the node, and unique to the job.
        size: Bytes, at least 1.
        leader: Whether this rank allocates the memory; one rank of each node does.
        what: What is shared, for error messages.
        advice: What to do if there is too little memory, for error messages.

    Raises:
        AttentError: There is too little memory, or a rank was lost.
    """
    path, purpose = node_path(name), f"the sharing of {what}"
    memory: mmap.mmap | None = None
    reason = ""
    if leader:
        with node_file(path) as file:
            try:
                # Allocate now: a later write without room would kill the process with SIGBUS.
                os.posix_fallocate(file.fileno(), 0, size)
                memory = mmap.mmap(file.fileno(), size)
            except OSError as error:
                reason = f" ({error.strerror})"
            with mapping(purpose):
                pass
    else:
        with mapping(purpose):
            memory = mapped(path) if os.path.getsize(path) == size else None
    if memory is None:
        folder = os.path.dirname(path)
        raise AttentError(f"{here()} has no {size} bytes in {folder} for {what}{reason}: {advice}")
    return memory
