"""Detect and report that a process has run out of file descriptors.

Each tensor that a loader worker sends takes a descriptor at both ends. What happens without one
depends on the process: an ``OSError``, a ``RuntimeError`` about "ancdata" in the process that
receives tensors, or nothing if a worker's background thread fails to send. In the last case torch
would wait for the batch until its timeout.
"""

import errno
import multiprocessing.queues
import os
import re
import resource
import sys
from typing import Any

from attent_stream.base.errors import OpenFilesError

EXIT_CODE = errno.EMFILE  # of a worker that could not send a batch or a tensor
_SAID = re.compile(r"Too many open files(?! in system)|received \d+ items of ancdata")
_TORCH_SAID = re.compile(rf"DataLoader worker .* exited unexpectedly with exit code {EXIT_CODE}\b")
_PLENTY = 65536


def is_out_of_files(error: BaseException) -> bool:
    """Whether an exception or one of its causes says that no file descriptor is left."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text = str(one)
        if getattr(one, "errno", None) == errno.EMFILE:
            return True
        if _SAID.search(text) or _TORCH_SAID.search(text):
            return True
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return False


def open_files_error(where: str) -> OpenFilesError:
    """Make the error for a process without file descriptors; ``where`` names its rank."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    if not unlimited and soft >= hard:
        cure = f"raise the hard limit, which is the same, and then run 'ulimit -n {_PLENTY}'"
    else:
        more = _PLENTY if unlimited else min(hard, _PLENTY)
        cure = f"run 'ulimit -n {more}' in the shell before training"
    return OpenFilesError(
        f"{where} or one of its loader workers ran out of file descriptors "
        f'("Too many open files"; the limit is {soft} for each process): {cure}, '
        "or lower num_workers and prefetch_factor and keep fewer batches"
    )


def leave_when_out_of_files() -> None:
    """End this loader worker if a background thread has no file descriptor to send a batch with.

    The thread would only print the error. The training process would wait for the batch until the
    loader's timeout, or for one of its tensors forever.
    """
    queue: Any = multiprocessing.queues.Queue
    feeder, hook = queue._on_queue_feeder_error, sys.excepthook

    def feeder_failed(error: Exception, batch: Any) -> None:
        _leave_if_out(error)
        feeder(error, batch)

    def thread_failed(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        # multiprocessing calls the hook itself when it fails to send a tensor, and tries again.
        _leave_if_out(error)
        hook(kind, error, traceback)

    queue._on_queue_feeder_error = staticmethod(feeder_failed)
    sys.excepthook = thread_failed


def _leave_if_out(error: BaseException) -> None:
    if is_out_of_files(error):
        os._exit(EXIT_CODE)
