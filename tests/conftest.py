"""What all tests share."""

import gc
import os

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _clean_streaming():
    """Streaming names its shared memory by a counter a machine: leave none behind for the next test."""
    from streaming.base.util import clean_stale_shared_memory

    yield
    gc.collect()
    clean_stale_shared_memory()
