"""What all tests share."""

import atexit
import contextlib
import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, and no test that a slow machine fails.
settings.register_profile("project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@contextlib.contextmanager
def streaming_cleaned_up():
    """Streaming closes its shared memory when the process ends, and each data set opens that of all before it: a test
    session would run out of open files. So do afterwards what would be done at exit, for what was made inside.
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
    gc.collect()
    for cleanup in cleanups:
        try:
            cleanup()
        except BufferError:  # somebody still looks at it, so it is closed at exit after all
            atexit.register(cleanup)


@pytest.fixture(autouse=True)
def _streaming_per_test():
    with streaming_cleaned_up():
        yield


@pytest.fixture(autouse=True, scope="module")
def _streaming_per_module():
    with streaming_cleaned_up():
        yield
