"""Processes that watch each other: none outlives the one that started it, and none waits for one
that has gone.

What waits, and the setting that limits it: a loader worker for the teacher, ``teacher_timeout``;
the training process for its workers, ``timeout`` (torch's own name); ranks for each other, the
process group's timeout (Composer's ``dist_timeout``).
"""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import current_process, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from typing import Any

from torch import distributed as dist

from attent_stream.base.errors import AttentError, OpenFilesError
from attent_stream.base.open_files import EXIT_CODE, is_out_of_files, open_files_error

# Seconds that the training process waits for a batch, if the user does not say
WORKER_TIMEOUT = 3600.0
_ROLL_CALL = 5.0  # seconds that the ranks have to answer when one is missed
_NAMED = 8  # ranks named in an error


def here() -> str:
    """This rank, as an error names it; read from the environment, so that loader workers know it
    too.
    """
    return f"rank {os.environ.get('RANK', '0')} ({socket.gethostname()})"


def parent_gone() -> bool:
    """Whether the process that started this one (by multiprocessing) has ended, also if it did
    before the first call.
    """
    parent = parent_process()
    if parent is None:
        return False
    if isinstance(current_process(), ForkServerProcess):  # forked by a server of the parent's
        return not parent.is_alive()
    return os.getppid() != parent.pid


def leave_with_parent(interval: float = 1.0) -> None:
    """End this worker process when the one that started it has ended, whatever it is doing or
    waiting for.

    torch's workers look only between batches. One that waits for something else (a shard that a
    process which has gone was fetching, Streaming's barrier) would stay for ever, and with it the
    run's shared memory and locks.

    Args:
        interval: Seconds between looks.
    """

    def watch() -> None:
        while not parent_gone():
            time.sleep(interval)
        # Multiprocessing's, with the sockets that tensors go through
        shutil.rmtree(get_temp_dir(), ignore_errors=True)
        # There is nobody to tell, and whatever the worker waits for it need not wait for
        os._exit(1)

    threading.Thread(target=watch, name="attent-watch", daemon=True).start()


def next_batch(batches: Iterator[Any], timeout: float) -> Any:
    """The next of a DataLoader's batches; says what to do if a worker was killed or is stuck.

    torch raises when a worker ends by a signal, in whatever code the process is then; where that
    code swallows it (a destructor), or trips over what the worker was sending, it is told here.

    Raises:
        AttentError: A worker ended, or sent nothing for ``timeout`` seconds.
        OpenFilesError: A worker ended because it was out of file descriptors.
    """
    if _lost(batches):
        raise _loss_of(_lost(batches)[0])
    try:
        return next(batches)
    except (RuntimeError, OSError, EOFError) as error:
        text = " ".join(str(error).split())
        if text.startswith("DataLoader timed out"):
            raise AttentError(
                f"{here()} lost its data loader: its workers sent nothing for {timeout:.0f} s; see "
                "what they wait for, or "
                f"raise the loader's timeout"
            ) from error
        cut = isinstance(error, (OSError, EOFError)) and _ended_by_now(batches)
        if not text.startswith(_TORCHS) and not cut:
            raise
        lost = _lost(batches)
        raise _loss_of(lost[0] if lost else text) from error


_TORCHS = "DataLoader worker"  # how torch begins to tell of one that has ended
_LOST = (
    "{here} lost its data loader: {said}; if nobody killed it the machine's memory ran out: lower "
    "num_workers or "
    "prefetch_factor"
)


def _lost(batches: Iterator[Any]) -> list[BaseProcess]:
    """The workers that ended by a signal or with an error."""
    return [worker for worker in _workers(batches) if worker.exitcode]


def _loss_of(lost: BaseProcess | str) -> AttentError:
    """The error for a worker that ended, or for what torch says of it."""
    if isinstance(lost, str):
        return AttentError(_LOST.format(here=here(), said=lost))
    if lost.exitcode == EXIT_CODE:
        return open_files_error(here())
    said = f"worker (pid {lost.pid}) ended with exit code {lost.exitcode}"
    return AttentError(_LOST.format(here=here(), said=said))


def _ended_by_now(batches: Iterator[Any]) -> bool:
    """Whether a worker has ended by a signal or with an error, or does so within a second."""
    try:
        ended = wait([worker.sentinel for worker in _workers(batches)], 1.0)
        for worker in _workers(batches):
            if worker.sentinel in ended:
                # A process closes its files, and so its sentinel, a moment before it can be waited
                # for
                worker.join(1.0)
    except RuntimeError as error:  # torch hears of it here
        if str(error).startswith(_TORCHS):
            return True
        raise
    return bool(_lost(batches))


def _workers(batches: Iterator[Any]) -> list[BaseProcess]:
    # Torch's own, not public: without it only torch's errors are told
    return getattr(batches, "_workers", [])


@contextmanager
def open_files_named() -> Iterator[None]:
    """Name what fails within because a process is out of file descriptors.

    Other errors stay as they are.

    Raises:
        OpenFilesError: Instead of what said so.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OpenFilesError) or not is_out_of_files(error):
            raise
        raise open_files_error(here()) from error


@contextmanager
def collective(what: str) -> Iterator[None]:
    """Name the ranks that are missing if a collective within does not come to its end.

    Args:
        what: What the ranks do together.

    Raises:
        AttentError: A collective failed, or took longer than the process group's timeout.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, AttentError) or not (
            isinstance(error, dist.DistError) or "gloo" in str(error)
        ):
            raise
        raise AttentError(
            f"{here()} could not go on with {what}, as {_missing()}; that rank's own log says why "
            "if it failed, and if it "
            f"is slow on purpose raise dist_timeout ({' '.join(str(error).split())})"
        ) from error


def _missing() -> str:
    """Which ranks do not answer, in words. Those that have noticed the failure do, within
    ``_ROLL_CALL`` seconds.
    """
    try:
        store, world = dist.distributed_c10d._get_default_store(), dist.get_world_size()
        keys = [f"attent/here/{rank}" for rank in range(world)]
        store.set(keys[dist.get_rank()], "1")
        try:
            store.wait(keys, timedelta(seconds=_ROLL_CALL))
            return "a rank was lost for a moment"
        except RuntimeError:
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:
        return "rank 0, which holds the job's store, has ended"
    named = ", ".join(map(str, missing[:_NAMED])) + (
        f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    )
    return f"of {world} ranks these did not answer within {_ROLL_CALL:.0f} s: {named}"
