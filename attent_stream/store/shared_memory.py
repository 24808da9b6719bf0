"""Streaming's shared memory, closed together with its data set.

Streaming 0.13 closes it when Python ends. Until then each data set keeps twelve file descriptors.
Each new one also opens the memory of all before it, to see which names are taken, and keeps that.
"""

import atexit
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing.shared_memory import SharedMemory as Block
from typing import Any

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, SHM_TO_CLEAN
from streaming.base.shared import SharedMemory
from streaming.base.shared.prefix import _get_path
from streaming.base.world import World

_opened: ContextVar[list[SharedMemory] | None] = ContextVar("attent_opened", default=None)
_in_use: list[Block] = []  # blocks that somebody still looked at when they were to be closed


class ClosesMemory:
    """Mixin before ``StreamingDataset``: closes its memory when it is collected.

    The only rank of a node also removes the names, and the lock files. On a node of several
    ranks the names stay until Python ends, as they do in Streaming: ranks drop a data set at
    different times, and must agree on which names are free when they make the next.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._memory: list[SharedMemory] = []
        try:
            with _collected(self._memory):
                super().__init__(*args, **kwargs)
        except BaseException:
            for memory in self._memory:
                _give_up(memory, unlink=World.detect().ranks_per_node == 1)
            raise
        for memory in [
            memory for memory in self._memory if _of_another(memory, self._shm_prefix_int)
        ]:
            self._memory.remove(memory)
            _give_up(memory, unlink=False)
        alone = self._unique_rank_world.ranks_per_node == 1
        names = [
            _get_path(self._shm_prefix_int, name) for name in (BARRIER_FILELOCK, CACHE_FILELOCK)
        ]
        locks = [os.path.join(self._filelock_root, name) for name in names] if alone else []
        weakref.finalize(self, _close, self._memory, self._locals_shm, locks, alone, os.getpid())

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        """As Streaming's."""
        opened: list[SharedMemory] = []
        with _collected(opened):
            super().load_state_dict(obj)
        for memory in opened:
            if memory.created_shms:
                self._memory.append(memory)
            else:  # it has been written, and is kept open where it was made
                _give_up(memory, unlink=False)

    def _resume(self, world: Any, epoch: int) -> tuple[int, int]:
        opened: list[SharedMemory] = []
        with _collected(opened):
            found = super()._resume(world, epoch)
        for memory in opened:
            _give_up(memory, unlink=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: it closes nothing."""
        return {**self.__dict__, "_memory": []}


def _close(
    memories: list[SharedMemory], locals_: SharedMemory, locks: list[str], alone: bool, maker: int
) -> None:
    """Close a data set's memory, but only in the process that made the data set."""
    if os.getpid() != maker:
        return
    with suppress(TypeError, ValueError):  # closed already
        locals_.buf[:4] = bytes(4)  # its folders are free again for another data set
    for memory in memories:
        _give_up(memory, unlink=alone)
    memories.clear()
    for path in locks:
        with suppress(OSError):
            os.unlink(path)


def _give_up(memory: SharedMemory, unlink: bool) -> None:
    """Close memory.

    If it was made here its name is removed too, with ``unlink`` now, without it when Python ends.
    """
    for block in [*_in_use, memory.shm]:
        try:
            block.close()
        except BufferError:  # an array of it is still used
            if block not in _in_use:
                _in_use.append(block)
            continue
        with suppress(ValueError):  # it was not there
            _in_use.remove(block)
    if memory.created_shms and not unlink:
        return
    for block in memory.created_shms:
        with suppress(FileNotFoundError):  # removed already, say by clean_stale_shared_memory
            block.unlink()
    atexit.unregister(memory.cleanup)
    memory.created_shms, memory.opened_shms = (
        [],
        [],
    )  # whoever calls cleanup now does nothing: names are used again


def _of_another(memory: SharedMemory, prefix: int) -> bool:
    """Whether this is another data set's memory, which was only looked at."""
    number, _, what = memory.shm.name.partition("_")
    return bool(memory.opened_shms) and what in SHM_TO_CLEAN and number != f"{prefix:06}"


@contextmanager
def _collected(memories: list[SharedMemory]) -> Iterator[None]:
    """Add the shared memory that this thread opens inside to a list."""
    token = _opened.set(memories)
    try:
        yield
    finally:
        _opened.reset(token)


def _observed(make: Callable[..., None]) -> Callable[..., None]:
    """``SharedMemory.__init__``, seen by ``_collected``: Streaming does not say what it opens."""

    def init(self: SharedMemory, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        memories = _opened.get()
        if memories is not None:
            memories.append(self)

    return init


SharedMemory.__init__ = _observed(SharedMemory.__init__)
