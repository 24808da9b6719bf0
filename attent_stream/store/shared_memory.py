"""Close Streaming's shared memory together with its data set.

Streaming 0.13 closes it when Python ends. Until then each data set keeps twelve file descriptors.
Each new one also opens, and keeps open, the memory of all others to see which names are taken.
"""

import atexit
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing.shared_memory import SharedMemory as Block
from typing import Any

from streaming.base import dataset as streamings
from streaming.base.constant import SHM_TO_CLEAN
from streaming.base.shared import SharedMemory
from streaming.base.world import World

from attent_stream.store.memory_names import lock_files, one_job_at_a_time, take_prefix

_opened: ContextVar[list[SharedMemory] | None] = ContextVar("attent_opened", default=None)
_in_use: list[Block] = []  # blocks that arrays still use, to close later


class ClosesMemory:
    """Mixin before ``StreamingDataset``: closes its memory when it is collected.

    A node's only rank also removes the names and the lock files. On a node of several ranks the
    names stay until Python ends, as in Streaming: ranks drop a data set at different times, and
    must agree on which names are free for the next.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._memory: list[SharedMemory] = []
        try:
            with _collected(self._memory), one_job_at_a_time():
                super().__init__(*args, **kwargs)
        except BaseException:
            for memory in self._memory:
                _give_up(memory, unlink=World.detect().ranks_per_node == 1)
            raise
        prefix = self._shm_prefix_int
        for memory in [one for one in self._memory if _of_another(one, prefix)]:
            self._memory.remove(memory)
            _give_up(memory, unlink=False)
        alone = self._unique_rank_world.ranks_per_node == 1
        locks = lock_files(prefix) if alone else []
        weakref.finalize(self, _close, self._memory, self._locals_shm, locks, alone, os.getpid())

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        """See StreamingDataset."""
        opened: list[SharedMemory] = []
        with _collected(opened):
            super().load_state_dict(obj)
        for memory in opened:
            if memory.created_shms:
                self._memory.append(memory)
            else:  # written; its maker keeps it open
                _give_up(memory, unlink=False)

    def _resume(self, world: Any, epoch: int) -> tuple[int, int]:
        opened: list[SharedMemory] = []
        with _collected(opened):
            found = super()._resume(world, epoch)
        for memory in opened:
            _give_up(memory, unlink=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a spawned worker, which closes nothing."""
        return {**self.__dict__, "_memory": []}


def _close(
    memories: list[SharedMemory], locals_: SharedMemory, locks: list[str], alone: bool, maker: int
) -> None:
    """Close a data set's memory, but only in the process that made the data set."""
    if os.getpid() != maker:
        return
    with suppress(TypeError, ValueError):  # closed already
        locals_.buf[:4] = bytes(4)  # free its folders for another data set
    for memory in memories:
        _give_up(memory, unlink=alone)
    memories.clear()
    for path in locks:
        with suppress(OSError):
            os.unlink(path)


def _give_up(memory: SharedMemory, unlink: bool) -> None:
    """Close memory; if it was made here, remove its name now (``unlink``) or when Python ends."""
    for block in [*_in_use, memory.shm]:
        try:
            block.close()
        except BufferError:  # an array still uses it
            if block not in _in_use:
                _in_use.append(block)
            continue
        with suppress(ValueError):  # not in the list
            _in_use.remove(block)
    if memory.created_shms and not unlink:
        return
    for block in memory.created_shms:
        with suppress(FileNotFoundError):  # removed already, e.g. by clean_stale_shared_memory
            block.unlink()
    atexit.unregister(memory.cleanup)
    # Names are used again, so later calls of cleanup must do nothing.
    memory.created_shms, memory.opened_shms = [], []


def _of_another(memory: SharedMemory, prefix: int) -> bool:
    """Whether this is the memory of another data set, opened only to check its name."""
    number, _, what = memory.shm.name.partition("_")
    return bool(memory.opened_shms) and what in SHM_TO_CLEAN and number != f"{prefix:06}"


@contextmanager
def _collected(memories: list[SharedMemory]) -> Iterator[None]:
    """Append the shared memory that this thread opens in the block to a list."""
    token = _opened.set(memories)
    try:
        yield
    finally:
        _opened.reset(token)


def _observed(make: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``SharedMemory.__init__`` for ``_collected``: Streaming does not list what it opens."""

    def init(self: SharedMemory, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        memories = _opened.get()
        if memories is not None:
            memories.append(self)

    return init


SharedMemory.__init__ = _observed(SharedMemory.__init__)


def _of_ours(find: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``get_shm_prefix``: data sets of this package take their names as they should."""

    def prefix(*args: Any, **kwargs: Any) -> Any:
        return (find if _opened.get() is None else take_prefix)(*args, **kwargs)

    return prefix


streamings.get_shm_prefix = _of_ours(streamings.get_shm_prefix)
