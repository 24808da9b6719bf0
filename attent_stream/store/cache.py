"""Who fetches a shard on this node, and what makes room for it: Streaming's shard states, without
waits that do not end.

Streaming 0.13 leaves a shard as being fetched where a fetch fails, so others wait for ever; keeps
its lock where no shard can be evicted; takes a damaged file that is in the cache for a good one;
and evicts what has no remote.
"""

import time

import numpy as np
from filelock import FileLock, Timeout
from streaming.base.constant import TICK
from streaming.base.dataset import _ShardState

from attent_stream.base.errors import CacheLimitError, CorruptError, StoreError, UnreachableError
from attent_stream.store import fetch, parts, stale

_HERE, _BUSY, _CROWDED, _OURS = range(4)


def take_over(data, begin: float) -> None:
    """Check and prepare a StreamingDataset for fetching in this package's way.

    Args:
        data: The data set, just constructed.
        begin: When its construction began (s since the epoch).

    Raises:
        ValueError: A stream's settings cannot work.
    """
    for number, stream in enumerate(data.streams):
        first = data.shard_offset_per_stream[number]
        fetch.check_stream(stream, f"stream {number}")
        fetch.check_hashes(
            stream, f"stream {number}", data.shards[first : first + data.shards_per_stream[number]]
        )
        fetch.protect(stream)
    if data._unique_rank_world.is_local_leader:
        parts.remove_leftovers(data.streams, begin)


def prepare_shard(data, shard_id: int, blocking: bool) -> None:
    """Have a shard in the cache, fetched by one process of the node.

    Args:
        data: The StreamingDataset.
        shard_id: Which shard.
        blocking: Whether to wait while another process fetches it.

    Raises:
        StoreError: It cannot be had.
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
                "filled (cache_limit is "
                f"{data.cache_limit} bytes); raise cache_limit, or use fewer workers or a smaller "
                "predownload"
            )
        time.sleep(TICK)
        # Without the lock: with it, dozens of waiters would keep those who fetch from saying that
        # they are done.
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


def _claim(data, shard_id: int, limit: float, where: str) -> int:
    """Take on a shard's fetching, or say why not."""
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
                        f"{where}: its file has not the size that the index says; copy it anew, or "
                        "give a remote"
                    )
                data._evict_shard(shard_id)
                state = _ShardState.REMOTE
            elif fetch.is_whole(stream, shard):
                data._shard_access_times[shard_id] = now
                return _HERE
        if (
            state != _ShardState.LOCAL
            and data.cache_limit
            and not _make_room(data, shard.get_max_size(), where)
        ):
            return _CROWDED
        data._shard_access_times[shard_id] = now
        data._shard_states[shard_id] = _ShardState.PREPARING
        return _OURS


def _is_claimed(data, shard_id: int, limit: float) -> bool:
    """Whether a process has taken on a shard's fetching, and not so long ago that it must have been
    killed.
    """
    # Who took it on says since when in the access time.
    age = time.time_ns() - int(data._shard_access_times[shard_id])
    return data._shard_states[shard_id] == _ShardState.PREPARING and age < 1.5 * limit * 1e9


def _make_room(data, size: int, where: str) -> bool:
    """Evict the least recently read shards until ``size`` bytes fit; False if that must wait for
    fetches under way.
    """
    while data.cache_limit < data.cache_usage + size:
        states, times = data._shard_states.numpy(), data._shard_access_times.numpy()
        local = np.flatnonzero(states == _ShardState.LOCAL)
        streams = [data.streams[i] for i in data.stream_per_shard[local]]
        local = (
            local[[stream.remote not in (None, stream.local) for stream in streams]]
            if len(local)
            else local
        )
        if not len(local):
            if (states == _ShardState.PREPARING).any():
                return False
            raise CacheLimitError(
                f"{where}: it needs {size} bytes of the cache, cache_limit is {data.cache_limit} "
                f"and {data.cache_usage} "
                "are used by what cannot be evicted (indices, streams without a remote); raise "
                "cache_limit"
            )
        data._evict_shard(int(local[np.argmin(times[local])]))
    return True


def _lock(data, limit: float, where: str):
    return _BoundedLock(data._cache_filelock_path, limit, where)


class _BoundedLock:
    """Streaming's lock of the cache, waited for in bounded time."""

    def __init__(self, path: str, limit: float, where: str) -> None:
        self._lock, self._limit, self._where = FileLock(path), limit, where

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=self._limit)
        except Timeout:
            raise UnreachableError(
                f"{self._where}: another process has held the cache's lock "
                f"({self._lock.lock_file}) for "
                f"{self._limit:.0f} s; end what is left of earlier runs, or raise download_timeout"
            ) from None

    def __exit__(self, *error) -> None:
        self._lock.release()


def _where(data, shard_id: int) -> str:
    number = int(data.stream_per_shard[shard_id])
    stream, first = data.streams[number], int(data.sample_offset_per_shard[shard_id])
    return fetch.describe(
        stream, number, data.shards[shard_id], shard_id, first, data._unique_rank_world.rank
    )
