"""The node's cache of shards: which process fetches a shard, and which shards are evicted.

It uses Streaming's shard states but bounds every wait. Streaming 0.13 has four faults here. A
failed fetch leaves its shard marked as being fetched, so others wait forever. The lock is kept if
no shard can be evicted. A damaged file in the cache is taken for a good one. Shards without a
remote are evicted.
"""

import time

import numpy as np
from filelock import FileLock, Timeout
from streaming import StreamingDataset
from streaming.base.constant import TICK
from streaming.base.dataset import _ShardState

from attent_stream.base.errors import CacheLimitError, CorruptError, StoreError, UnreachableError
from attent_stream.store import fetch, parts, stale

_HERE, _BUSY, _CROWDED, _OURS = range(4)


def take_over(data: StreamingDataset, begin: float) -> None:
    """Check a StreamingDataset and prepare it for this package's fetching.

    Args:
        data: The data set, just constructed.
        begin: Time at which its construction began (s since the epoch).

    Raises:
        ValueError: A stream's settings are invalid.
    """
    for number, stream in enumerate(data.streams):
        first = data.shard_offset_per_stream[number]
        fetch.check_stream(stream, f"stream {number}")
        shards = data.shards[first : first + data.shards_per_stream[number]]
        fetch.check_hashes(stream, f"stream {number}", shards.stored_hashes())
        fetch.protect(stream)
    if data._unique_rank_world.is_local_leader:
        parts.remove_leftovers(data.streams, begin)


def prepare_shard(data: StreamingDataset, shard_id: int, blocking: bool) -> None:
    """Make a shard ready to read, fetched by one process of the node.

    Args:
        data: The StreamingDataset.
        shard_id: Number of the shard.
        blocking: Whether to wait while another process fetches it.

    Raises:
        StoreError: The shard cannot be fetched.
    """
    stream = data.streams[data.stream_per_shard[shard_id]]
    where = _where(data, shard_id)
    limit = fetch.patience(stream, len(data.shards[shard_id].file_pairs))
    begin = time.monotonic()
    while (state := _claim(data, shard_id, limit, where)) != _OURS:
        if state == _HERE or (state == _BUSY and not blocking):
            return
        if state == _CROWDED and time.monotonic() - begin > limit:
            raise CacheLimitError(
                f"{where}: no room in the cache for {limit:.0f} s, because all of it is being "
                f"filled (cache_limit is {data.cache_limit} bytes); raise cache_limit, or use "
                "fewer workers or a smaller predownload"
            )
        time.sleep(TICK)
        # Poll without the lock: dozens of waiters would keep it from the process that fetches.
        while state == _BUSY and _is_claimed(data, shard_id, limit):
            time.sleep(TICK)
    try:
        delta = fetch.fetch_shard(stream, data.shards[shard_id], where)
    except BaseException as error:
        data._shard_states[shard_id] = _ShardState.REMOTE
        if isinstance(error, StoreError):
            raise stale.explained(error, stream, where) from None
        raise
    with _lock(data, limit, where):
        data.cache_usage += delta
        data._shard_access_times[shard_id] = time.time_ns()
        data._shard_states[shard_id] = _ShardState.LOCAL


def _claim(data: StreamingDataset, shard_id: int, limit: float, where: str) -> int:
    """Claim a shard for fetching, or return why not."""
    stream, shard = data.streams[data.stream_per_shard[shard_id]], data.shards[shard_id]
    with _lock(data, limit, where):
        state = data._shard_states[shard_id]
        now = time.time_ns()
        if state == _ShardState.PREPARING:
            if _is_claimed(data, shard_id, limit):
                return _BUSY
        elif state == _ShardState.LOCAL:
            if fetch.is_torn(stream, shard):
                if stream.remote in (None, stream.local):
                    raise CorruptError(
                        f"{where}: its file differs in size from the index; copy it again, or set "
                        "a remote"
                    )
                data._evict_shard(shard_id)
                state = _ShardState.REMOTE
            elif fetch.is_whole(stream, shard):
                data._shard_access_times[shard_id] = now
                return _HERE
        limited = state != _ShardState.LOCAL and data.cache_limit
        if limited and not _make_room(data, shard.get_max_size(), where):
            return _CROWDED
        data._shard_access_times[shard_id] = now
        data._shard_states[shard_id] = _ShardState.PREPARING
        return _OURS


def _is_claimed(data: StreamingDataset, shard_id: int, limit: float) -> bool:
    """Whether a process is fetching a shard; an old claim is of a process that was killed."""
    # The access time of a claimed shard is the time of the claim.
    age = time.time_ns() - int(data._shard_access_times[shard_id])
    return data._shard_states[shard_id] == _ShardState.PREPARING and age < 1.5 * limit * 1e9


def _make_room(data: StreamingDataset, size: int, where: str) -> bool:
    """Evict the least recently read shards until ``size`` bytes fit; False to wait for fetches."""
    while data.cache_limit < data.cache_usage + size:
        states, times = data._shard_states.numpy(), data._shard_access_times.numpy()
        local = np.flatnonzero(states == _ShardState.LOCAL)
        streams = [data.streams[i] for i in data.stream_per_shard[local]]
        remote = [stream.remote not in (None, stream.local) for stream in streams]
        local = local[np.array(remote, bool)]
        if not len(local):
            if (states == _ShardState.PREPARING).any():
                return False
            raise CacheLimitError(
                f"{where}: it needs {size} bytes of the cache, cache_limit is {data.cache_limit}, "
                f"and indices and streams without a remote, which cannot be evicted, use "
                f"{data.cache_usage}; raise cache_limit"
            )
        data._evict_shard(int(local[np.argmin(times[local])]))
    return True


def _lock(data: StreamingDataset, limit: float, where: str) -> "_BoundedLock":
    return _BoundedLock(data._cache_filelock_path, limit, where)


class _BoundedLock:
    """Streaming's lock of the cache, with a limit on the wait for it."""

    def __init__(self, path: str, limit: float, where: str) -> None:
        self._lock, self._limit, self._where = FileLock(path), limit, where

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=self._limit)
        except Timeout:
            raise UnreachableError(
                f"{self._where}: another process has held the cache's lock "
                f"({self._lock.lock_file}) for {self._limit:.0f} s; end processes of earlier runs, "
                "or raise download_timeout"
            ) from None

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _where(data: StreamingDataset, shard_id: int) -> str:
    number = int(data.stream_per_shard[shard_id])
    stream, first = data.streams[number], int(data.sample_offset_per_shard[shard_id])
    return fetch.describe(
        stream, number, data.shards[shard_id], shard_id, first, data._unique_rank_world.rank
    )
