"""The thread that fetches shards ahead. Oracle: a data set that notes what it is asked for, and can
be slow.
"""

import threading

import numpy as np
import pytest
from streaming.base.dataset import _ShardState

from attent_stream.store import shards
from attent_stream.store.shards import ShardFetcher

SAMPLES = 8  # a shard


class Shared:
    def __init__(self, values):
        self._values = values

    def numpy(self):
        return self._values

    def __getitem__(self, index):
        return self._values[index]


class Slow:
    """Four shards, each of whose preparation waits to be let go on."""

    def __init__(self):
        self.streams, self.num_shards = [], 4
        self.sample_offset_per_shard = np.arange(4) * SAMPLES
        self._shard_states = Shared(np.full(4, int(_ShardState.REMOTE)))
        self.asked, self.begun, self.go_on = [], threading.Event(), threading.Event()

    def prepare_shard(self, shard, blocking):
        self.asked.append((shard, blocking))
        self.begun.set()
        assert self.go_on.wait(60)


def closing(fetcher: ShardFetcher) -> threading.Thread:
    thread = threading.Thread(target=fetcher.close, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("worker", [True, False])
def test_closed_in_the_middle_of_a_shard(monkeypatch, worker):
    """A worker that ends takes its threads with it: the shard that one is at is finished first, and
    no other begun.
    """
    monkeypatch.setattr(shards, "get_worker_info", lambda: object() if worker else None)
    data = Slow()
    fetcher = ShardFetcher(data, predownload=4 * SAMPLES)
    fetcher.expect(np.arange(4 * SAMPLES))
    assert data.begun.wait(60)
    thread = closing(fetcher)
    thread.join(0.2 if worker else 60)
    assert thread.is_alive() == worker
    data.go_on.set()
    thread.join(60)
    fetcher._thread.join(60)
    assert not thread.is_alive() and not fetcher._thread.is_alive()
    assert data.asked == [(0, False)]
