"""Streaming's shared memory, closed while a test session goes on."""

import atexit
import contextlib
import gc
import sys

import pytest


@contextlib.contextmanager
def streaming_cleaned_up(before=None):
    """Streaming closes its shared memory when the process ends, and each data set opens that of all
    before it: a test session would run out of open files. So do afterwards what would be done at
    exit, for what was made inside.

    Args:
        before: Called before garbage is collected. If it is given, garbage is collected only where
            there is something to close.
    """
    if "streaming" not in sys.modules:
        yield
        return
    cleanups = []

    class Collected:
        """``atexit`` as Streaming's shared memory sees it."""

        register = staticmethod(cleanups.append)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streaming.base.shared.memory.atexit", Collected)
        yield
    if before is None:
        gc.collect()
    elif cleanups:
        before()
        gc.collect()
    for cleanup in cleanups:
        try:
            cleanup()
        except BufferError:  # somebody still looks at it, so it is closed at exit after all
            atexit.register(cleanup)
