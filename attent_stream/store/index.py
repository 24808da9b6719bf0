"""Fetch the indices of streams like shards, before Streaming 0.13 looks for them in the cache."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streaming import Stream
from streaming.base.constant import DEFAULT_TIMEOUT
from streaming.base.format import get_index_basename
from streaming.base.world import World

from attent_stream.base.errors import CorruptError
from attent_stream.base.redaction import masked_text
from attent_stream.store import fetch
from attent_stream.store.stale import check_index
from attent_stream.store.store_errors import is_of_a_store, store_error

_LARGE = 1 << 26  # bytes
_END = 64  # bytes


def fetch_indices(settings: Mapping[str, Any]) -> None:
    """Fetch the indices that the node lacks, and compare the others with the store's.

    One rank of the node does the work.

    Args:
        settings: StreamingDataset's arguments. Streaming itself handles other kinds of streams and
            streams without a ``local`` folder.

    Raises:
        StoreError: An index cannot be fetched, or the cached index is older than the store's.
    """
    world = World.detect()
    if not world.is_local_leader:
        return
    plain = settings.get("stream_name", "stream") == "stream"
    given = settings.get("streams") or (
        [None] if plain and settings.get("remote") and settings.get("local") else []
    )
    unreachable: set[str] = set()  # stores not to wait for again
    for number, stream in enumerate(given):
        if stream is None or (stream.remote and stream._local and fetch.downloads_itself(stream)):
            full = _with_defaults(stream, settings)
            _have_index(full, f"stream {number}", world.rank, unreachable)


@contextmanager
def index_errors_named(remote: str | None, rank: int) -> Iterator[None]:
    """Raise StoreError for the errors of a store in the block, where Streaming fetches indices."""
    try:
        yield
    except Exception as error:
        torn = isinstance(error, ValueError) and "Index file at" in str(error)
        if not torn and not is_of_a_store(error):
            raise
        cause = CorruptError(f"{error}; remove that file") if torn else error
        where = f"{get_index_basename()} of {remote or 'a stream'}, rank {rank}"
        raise store_error(cause, where) from None


def check_json(path: Path) -> None:
    """Raise ValueError if a file is no JSON.

    Of a large file only both ends are looked at: whole, it would take ten times its size. What is
    wrong in the middle is found where it is read.
    """
    with open(path, "rb") as file:
        if path.stat().st_size <= _LARGE:
            json.loads(file.read())
            return
        begin = file.read(_END)
        file.seek(-_END, os.SEEK_END)
        end = file.read()
    if not (begin.lstrip().startswith(b"{") and end.rstrip().endswith(b"}")):
        raise ValueError("it is cut short")


def _with_defaults(stream: Stream | None, settings: Mapping[str, Any]) -> Stream:
    """Copy a stream, or make one for None, with the data set's arguments as defaults."""
    values = {
        "remote": None,
        "local": None,
        "split": None,
        "download_retry": 2,
        "download_timeout": DEFAULT_TIMEOUT,
    }
    values |= {name: settings[name] for name in values if settings.get(name) is not None}
    if stream is not None:
        own = {
            "remote": stream.remote,
            "local": stream.local,
            "split": stream.split or None,
            "download_retry": stream._download_retry,
            "download_timeout": stream._download_timeout,
        }
        values |= {name: value for name, value in own.items() if value is not None}
    return Stream(**values)


def _have_index(stream: Stream, which: str, rank: int, unreachable: set[str]) -> None:
    name = get_index_basename()
    path = Path(stream.local, stream.split, name)
    if stream.remote == stream.local:
        return
    source = os.path.join(stream.remote, stream.split).rstrip("/")
    where = masked_text(f"{name} of {which} ({source}), rank {rank}")
    fetch.check_stream(stream, which)
    fetch.protect(stream)
    if path.exists():
        store = "://".join(urlsplit(stream.remote)[:2])
        if store not in unreachable and not check_index(stream, where):
            unreachable.add(store)
        return

    def check(part: Path) -> None:
        try:
            check_json(part)
        except ValueError as error:
            raise CorruptError(f"{name} is not valid JSON: {error}") from error

    fetch.retried(lambda: fetch.fetch_file(stream, name, check), stream, where)
