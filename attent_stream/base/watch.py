"""Processes that watch each other: none outlives its parent or waits for a process that has ended.

Every wait has a limit. A loader worker waits for the teacher up to ``teacher_timeout``, the
training process for its workers up to ``timeout`` (torch's name), and ranks for each other up to
the process group's timeout (Composer's ``dist_timeout``).
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

WORKER_TIMEOUT = 3600.0  # default limit (s) on the training process's wait for a batch
_ROLL_CALL = 5.0  # seconds that the ranks have to answer when one is missed
_NAMED = 8  # ranks named in an error
_TORCHS = "DataLoader worker"  # how torch's error about an ended worker begins


def here() -> str:
    """Name this rank for error messages; it reads the environment, so it works in workers too."""
    return f"rank {os.environ.get('RANK', '0')} ({socket.gethostname()})"


def parent_gone() -> bool:
    """Whether the process that started this one by multiprocessing has ended."""
    parent = parent_process()
    if parent is None:
        return False
    if isinstance(current_process(), ForkServerProcess):  # getppid() is the fork server's
        return not parent.is_alive()
    return os.getppid() != parent.pid


def leave_with_parent(interval: float = 1.0) -> None:
    """End this worker process when its parent has ended, whatever it is doing or waiting for.

    torch's workers check only between batches. A worker that waits for something else, such as a
    shard that a killed process was fetching or Streaming's barrier, would never end, and would keep
    the run's shared memory and locks.

    Args:
        interval: Seconds between checks.
    """

    def watch() -> None:
        while not parent_gone():
            time.sleep(interval)
        # multiprocessing's folder, with the sockets that send tensors
        shutil.rmtree(get_temp_dir(), ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="attent-watch", daemon=True).start()


def next_batch(batches: Iterator[Any], timeout: float) -> Any:
    """Return a DataLoader's next batch, with a helpful error if a worker was killed or is stuck.

    torch raises its error about an ended worker in whatever code the process is executing. That
    code may swallow it, so this function checks the workers as well.

    Raises:
        AttentError: A worker ended, or sent nothing for ``timeout`` seconds.
        OpenFilesError: A worker ended because it was out of file descriptors.
    """
    if lost := _lost(batches):
        raise _loss_of(lost[0])
    try:
        return next(batches)
    except (RuntimeError, OSError, EOFError) as error:
        text = " ".join(str(error).split())
        if text.startswith("DataLoader timed out"):
            raise AttentError(
                f"{here()} lost its data loader: its workers sent nothing for {timeout:.0f} s; "
                "find out what they wait for, or raise the loader's timeout"
            ) from error
        cut = isinstance(error, (OSError, EOFError)) and _ended_by_now(batches)
        if not text.startswith(_TORCHS) and not cut:
            raise
        lost = _lost(batches)
        raise _loss_of(lost[0] if lost else text) from error


def _lost(batches: Iterator[Any]) -> list[BaseProcess]:
    """List the workers that ended by a signal or with an error."""
    return [worker for worker in _workers(batches) if worker.exitcode]


def _loss_of(lost: BaseProcess | str) -> AttentError:
    """Make the error for a worker that ended, or for torch's message about it."""
    if isinstance(lost, str):
        said = lost
    elif lost.exitcode == EXIT_CODE:
        return open_files_error(here())
    else:
        said = f"worker (pid {lost.pid}) ended with exit code {lost.exitcode}"
    return AttentError(
        f"{here()} lost its data loader: {said}; if nobody killed it, the machine ran out of "
        "memory: lower num_workers or prefetch_factor"
    )


def _ended_by_now(batches: Iterator[Any]) -> bool:
    """Whether a worker has ended by a signal or with an error, or does so within a second."""
    try:
        ended = wait([worker.sentinel for worker in _workers(batches)], 1.0)
        for worker in _workers(batches):
            if worker.sentinel in ended:
                # The sentinel closes a moment before the process can be joined.
                worker.join(1.0)
    except RuntimeError as error:  # torch may raise here
        if str(error).startswith(_TORCHS):
            return True
        raise
    return bool(_lost(batches))


def _workers(batches: Iterator[Any]) -> list[BaseProcess]:
    # A private attribute of torch's iterator; without it only torch's own errors are reported.
    return getattr(batches, "_workers", [])


@contextmanager
def open_files_named() -> Iterator[None]:
    """Raise OpenFilesError if the block fails because a process is out of file descriptors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OpenFilesError) or not is_out_of_files(error):
            raise
        raise open_files_error(here()) from error


@contextmanager
def collective(what: str) -> Iterator[None]:
    """Name the missing ranks if a collective operation in the block fails.

    Args:
        what: The purpose of the operation, for the error message.

    Raises:
        AttentError: A collective failed, or exceeded the process group's timeout.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, AttentError) or not (
            isinstance(error, dist.DistError) or "gloo" in str(error)
        ):
            raise
        raise AttentError(
            f"{here()} could not finish {what} because {_missing()}; look for the cause in the log "
            "of that rank, or raise dist_timeout if it is only slow "
            f"({' '.join(str(error).split())})"
        ) from error


def _missing() -> str:
    """Describe the ranks that do not answer; those that notice the failure set a key in time."""
    try:
        store, world = dist.distributed_c10d._get_default_store(), dist.get_world_size()
        keys = [f"attent/here/{rank}" for rank in range(world)]
        store.set(keys[dist.get_rank()], "1")
        try:
            store.wait(keys, timedelta(seconds=_ROLL_CALL))
            return "the connection to a rank was lost for a moment"
        except RuntimeError:
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:
        return "rank 0, which holds the job's store, has ended"
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"{len(missing)} of {world} ranks did not answer within {_ROLL_CALL:.0f} s "
        f"(rank {', '.join(map(str, missing[:_NAMED]))}{more})"
    )
