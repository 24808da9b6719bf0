"""Memory that the ranks of one node share: a file that one of them makes, all map, and that then
has no name any more.
"""

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
    """Where a file of this name lies in the node's memory, or on its disk where it has no such
    folder.
    """
    return os.path.join(_FOLDER if os.path.isdir(_FOLDER) else tempfile.gettempdir(), name)


@contextmanager
def node_file(path: str) -> Iterator[BinaryIO]:
    """An empty file to write, for as long as the node's ranks need to map it: the mappings keep the
    memory.

    Args:
        path: By ``node_path``, the same on the node's ranks and no other job's.
    """
    if os.path.exists(path):
        os.unlink(path)  # left by a run that was killed together with its resource tracker
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
    name = f"/{os.path.basename(path)}"
    in_memory = path.startswith(_FOLDER)
    if in_memory:
        # Which unlinks it should this process be killed
        resource_tracker.register(name, "shared_memory")
    try:
        with file:
            yield file
    finally:
        os.unlink(path)
        if in_memory:
            resource_tracker.unregister(name, "shared_memory")


def meet(purpose: str) -> None:
    """Wait until all ranks are here; see ``collective``."""
    with collective(purpose):
        dist.barrier()


@contextmanager
def mapping(purpose: str) -> Iterator[None]:
    """Map, within, what the leader has made before; afterwards all have mapped it."""
    meet(purpose)
    yield
    meet(purpose)


def mapped(path: str) -> mmap.mmap:
    """A file to read, as memory."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def node_memory(name: str, size: int, *, leader: bool, what: str, advice: str) -> mmap.mmap:
    """Zeroed memory that the leader may write and all may read; it is gone with the last of them.

    All ranks of the job must call it together.

    Args:
        name: Of its file, the same on the node's ranks and no other job's.
        size: Bytes, at least 1.
        leader: Whether this rank makes it; one of each node does.
        what: For errors: what is shared.
        advice: For errors: what to do where there is not so much.

    Raises:
        AttentError: There is not so much, or a rank was lost on the way.
    """
    path, purpose = node_path(name), f"the sharing of {what}"
    memory: mmap.mmap | None = None
    reason = ""
    if leader:
        with node_file(path) as file:
            try:
                # Now, as a write without room would end the process
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
        raise AttentError(
            f"{here()} has no {size} bytes in {os.path.dirname(path)} for {what}{reason}: {advice}"
        )
    return memory
