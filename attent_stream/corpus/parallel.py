"""Map a function over items in several processes, with results in order."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from attent_stream.corpus.errors import CorpusError

_task: list[Callable] = []  # The function that a worker process runs.


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _start_worker(function: Callable) -> None:
    _task[:] = [function]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C.
    # Without this thread the workers of a killed parent would wait on a pipe for ever.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _call(argument: Any) -> Any:
    return _task[0](argument)


@contextmanager
def ordered_map(function: Callable[[Any], Any], workers: int) -> Iterator[Callable]:
    """Open `run(items, argument)`, which yields (item, function(argument(item))) in order.

    One worker means this process. More are started on entering (forked on Linux, before this tool
    starts threads), and a few items for each worker are read ahead.

    Raises:
        CorpusError: A worker process died, for example of too little memory.
    """
    if workers == 1:
        yield lambda items, argument: ((item, function(argument(item))) for item in items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (function,)) as pool:
        # Threads of one worker would compete with the other workers for cores.
        with _environment("TOKENIZERS_PARALLELISM", "false"):
            pool.submit(int).result()
        try:
            yield lambda items, argument: _in_order(pool, items, argument, ahead=2 * workers + 2)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_order(
    pool: ProcessPoolExecutor, items: Iterable, argument: Callable, ahead: int
) -> Iterator[tuple]:
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_call, argument(item))))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    except BrokenProcessPool as error:
        raise CorpusError(
            f"a worker process died ({error}); try fewer workers or more memory"
        ) from error
