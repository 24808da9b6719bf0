"""What all tests share."""

import gc
import os
import sys

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _streaming_from_zero():
    """Streaming numbers its data sets on a machine and opens the shared memory of all before: let each test start anew.

    (Two pytest processes at once on one machine disturb each other through this; give each its own /dev/shm.)
    """
    yield
    if "streaming" in sys.modules:
        from streaming.base.util import clean_stale_shared_memory

        gc.collect()
        clean_stale_shared_memory()
