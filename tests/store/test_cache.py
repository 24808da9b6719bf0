"""The node's cache of shards: claims, the lock, eviction and damaged files."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from stores import SAMPLES, opened, read, shards_in, taught_run
from streaming import Stream
from streaming.base.dataset import _ShardState

from attent_stream import TeachingDataset
from attent_stream.base.errors import CacheLimitError, CorruptError, StoreError
from attent_stream.store import cache, fetch


def test_a_torn_file_in_the_cache_is_fetched_again(tmp_path, buckets, proxy):
    """As a run that was killed, or a full disk, may have left it."""
    shutil.copytree(buckets / "bucket" / "plain", tmp_path / "cache")
    torn = tmp_path / "cache" / "shard.00001.mds"
    torn.write_bytes(torn.read_bytes()[:99])
    data = opened(tmp_path, "s3://bucket/plain")
    for shard in range(data.num_shards):
        data.prepare_shard(shard)
    assert read(data) == list(range(SAMPLES))
    assert proxy.gets() == {("", "bucket/plain/shard.00001.mds"): 1}
    torn.write_bytes(b"torn again")
    alone = TeachingDataset(local=str(tmp_path / "cache"), batch_size=4)
    with pytest.raises(
        CorruptError,
        match=r"shard 1 .*differs in size from the index; copy it again, or set a remote",
    ):
        alone.prepare_shard(1)
    assert torn.read_bytes() == b"torn again"


def test_a_claim_of_a_killed_process_is_taken_over(tmp_path, proxy):
    """Its shard would be waited for for ever."""

    data = opened(tmp_path, "s3://bucket/plain", download_retry=1)
    limit = 1.5 * fetch.patience(data.streams[0])
    # The second is waited for, for a second
    for shard, seconds_ago in ((0, limit + 1), (1, limit - 1)):
        data._shard_states[shard] = _ShardState.PREPARING
        data._shard_access_times[shard] = np.uint64(time.time_ns() - int(seconds_ago * 1e9))
    assert read(data) == list(range(SAMPLES))
    assert max(proxy.gets().values()) == 1


def test_waiting_for_a_fetch_leaves_the_lock_alone(tmp_path, proxy, monkeypatch):
    """It is taken to see that another process fetches, to take over from it, and to say that the
    shard is here: thrice, however long that takes.
    """

    data, ticks, locked, lock = opened(tmp_path, "s3://bucket/plain"), [], [], cache._lock

    def tick(seconds):
        ticks.append(seconds)
        if len(ticks) == 50:
            data._shard_states[0] = _ShardState.REMOTE  # the other has failed

    def counted(*args):
        locked.append(args)
        return lock(*args)

    monkeypatch.setattr(
        cache, "time", SimpleNamespace(sleep=tick, monotonic=time.monotonic, time_ns=time.time_ns)
    )
    monkeypatch.setattr(cache, "_lock", counted)
    data._shard_states[0] = _ShardState.PREPARING
    data._shard_access_times[0] = np.uint64(time.time_ns())
    data.prepare_shard(0)
    assert (len(ticks), len(locked)) == (50, 3)
    assert data[0]["id"] == 0


def test_a_lock_that_is_not_given_back_is_named(tmp_path, proxy):

    data = opened(tmp_path, "s3://bucket/plain", download_retry=1)
    data.streams[0].download_timeout = 0.2
    with (
        FileLock(data._cache_filelock_path),
        pytest.raises(StoreError, match="held the cache's lock .* for 1 s; end processes"),
    ):
        data[0]
    data.streams[0].download_timeout = 20
    assert data[0]["id"] == 0


@pytest.mark.parametrize("workers", [0, 3])
def test_a_cache_smaller_than_a_window(tmp_path, buckets, proxy, workers):
    """The least that Streaming allows, four shards where a window reads from all twelve: shards are
    got again and again, the lessons are the same.
    """
    expected = taught_run(buckets / "bucket" / "plain", None, workers=0, window=16)
    index = (buckets / "bucket" / "plain" / "index.json").stat().st_size
    limit = index + 4 * 448
    settings = {"window": 16, "cache_limit": limit, "predownload": 4}
    assert (
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=workers, **settings) == expected
    )
    assert max(proxy.gets().values()) > 1
    # The limit counts a shard when it is here. A process may be fetching two: one that is read now
    # and one ahead.
    assert len(shards_in(tmp_path / "cache")) <= 4 + 2 * max(1, workers)


def test_nothing_to_evict_is_named(tmp_path, proxy, monkeypatch):
    """All of the cache is taken by what cannot be evicted; the lock is given back."""
    data = TeachingDataset(
        remote="s3://bucket/plain", local=str(tmp_path / "cache"), batch_size=4, cache_limit="8kb"
    )
    data.cache_limit = data.cache_usage + 100
    for _ in range(2):
        with pytest.raises(
            CacheLimitError,
            match=r"shard 0 .*needs \d+ bytes of the cache, cache_limit is .*raise cache_limit",
        ):
            data[0]
    data.cache_limit = data.cache_usage + 3000
    assert data[0]["id"] == 0


def test_waiting_for_room_ends(tmp_path, proxy):
    """Everything in the cache is being fetched, by processes that do not come to an end."""

    import numpy as np

    settings = {"download_retry": 1, "cache_limit": "8kb"}
    data = TeachingDataset(
        remote="s3://bucket/plain", local=str(tmp_path / "cache"), batch_size=4, **settings
    )
    data.streams[0].download_timeout = 0.5
    data.cache_limit = data.cache_usage + 100
    data._shard_states[1] = _ShardState.PREPARING
    data._shard_access_times[1] = np.uint64(time.time_ns())
    with pytest.raises(
        CacheLimitError, match="no room in the cache for .*being filled .*raise cache_limit"
    ):
        data[0]


def test_what_has_no_remote_is_never_evicted(tmp_path, buckets, proxy):
    """Streaming 0.13 deletes it: it would be the only copy."""

    own = tmp_path / "own"
    shutil.copytree(buckets / "bucket" / "hashed", own)
    before = shards_in(own)
    streams = [
        Stream(local=str(own)),
        Stream(remote="s3://bucket/plain", local=str(tmp_path / "cache")),
    ]
    limit = sum(path.stat().st_size for path in own.iterdir()) + 12_000
    data = TeachingDataset(streams=streams, batch_size=4, cache_limit=limit)
    data.cache_limit = data.cache_usage + 4 * 448
    assert [int(data[i]["id"]) for i in range(2 * SAMPLES)] == 2 * list(range(SAMPLES))
    assert shards_in(own) == before
    assert len(shards_in(tmp_path / "cache")) <= 4
