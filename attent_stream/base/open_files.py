"""A process that has run out of file descriptors.

Each tensor that a loader worker sends takes one at either end. What is raised depends on who needed
one: an ``OSError`` that says so, a ``RuntimeError`` about "ancdata" in the process that receives
tensors, or nothing where a worker's background thread fails to send. torch would then wait for that
batch until its timeout.
"""

import errno
import multiprocessing.queues
import os
import re
import resource
import sys
from typing import Any

from attent_stream.base.errors import OpenFilesError

EXIT_CODE = errno.EMFILE  # of a worker that could not send a batch, or hand over a tensor of one
_SAID = re.compile(r"Too many open files(?! in system)|received \d+ items of ancdata")
_TORCH_SAID = re.compile(rf"DataLoader worker .* exited unexpectedly with exit code {EXIT_CODE}\b")
_PLENTY = 65536


def is_out_of_files(error: BaseException) -> bool:
    """Whether an exception, or what caused it, says that a process is out of file descriptors."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text = str(one)
        if (
            getattr(one, "errno", None) == errno.EMFILE
            or _SAID.search(text)
            or _TORCH_SAID.search(text)
        ):
            return True
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return False


def open_files_error(where: str) -> OpenFilesError:
    """The error of this package for it.

    Args:
        where: Which rank it is.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = most == resource.RLIM_INFINITY
    more = _PLENTY if unlimited or most > _PLENTY else most
    cure = f"run 'ulimit -n {more}' in the shell before the training"
    if not unlimited and allowed >= most:
        cure = (
            f"have the system allow more (that is also the hard limit), and then raise it with "
            f"'ulimit -n {_PLENTY}'"
        )
    return OpenFilesError(
        f"{where} or one of its loader workers ran out of file descriptors "
        f'("Too many open files"), of which {allowed} are allowed to each process now: {cure}, '
        f"or lower num_workers and prefetch_factor and keep fewer batches"
    )


def leave_when_out_of_files() -> None:
    """End this loader worker when a background thread has no file descriptor to send a batch with.

    The thread only prints that. The training process would wait for the batch until the loader's
    timeout, or for a tensor of it for ever.
    """
    feeder, hook = multiprocessing.queues.Queue._on_queue_feeder_error, sys.excepthook

    def feeder_failed(error: Exception, batch: Any) -> None:
        _leave_if_out(error)
        feeder(error, batch)

    def thread_failed(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        _leave_if_out(
            error
        )  # multiprocessing calls the hook itself where it hands over tensors, and tries again
        hook(kind, error, traceback)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(feeder_failed)
    sys.excepthook = thread_failed


def _leave_if_out(error: BaseException) -> None:
    if is_out_of_files(error):
        os._exit(EXIT_CODE)
