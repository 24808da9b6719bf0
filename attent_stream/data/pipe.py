"""The pipe through which a DataLoader's workers return batches."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

ROOM = 1 << 20  # bytes, the most that Linux gives without privileges; a pipe begins with 64 KiB


def widen(batches: Iterator[Any]) -> None:
    """Make room in the pipe for all batches that are read ahead.

    When the pipe is full, a worker waits until the training process reads, and then training waits
    for the worker: for a millisecond or two at a step with several batches of candidates. A system
    that does not allow it leaves the pipe as it is.

    Args:
        batches: A DataLoader's iterator; one without workers has no pipe.
    """
    queue = getattr(batches, "_worker_result_queue", None)
    if queue is None or sys.platform != "linux":
        return
    from fcntl import F_SETPIPE_SZ, fcntl

    with suppress(OSError):
        fcntl(queue._writer.fileno(), F_SETPIPE_SZ, ROOM)
