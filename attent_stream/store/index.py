"""The indices of the streams, fetched like shards: whole, in bounded time, or an error with a name.

Streaming 0.13 reads them while its data set is being constructed; it finds those that are here
already.
"""

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


def fetch_indices(settings: Mapping[str, Any]) -> None:
    """Fetch the indices that the node lacks, and compare those that it has with the store's.

    One rank of the node does that.

    Args:
        settings: StreamingDataset's arguments. Streams of other kinds, and those that make their
            own cache folder, are left to Streaming.

    Raises:
        StoreError: An index cannot be had, or the cached one is of older data than the store's.
    """
    world = World.detect()
    if not world.is_local_leader:
        return
    plain = settings.get("stream_name", "stream") == "stream"
    given = settings.get("streams") or (
        [None] if plain and settings.get("remote") and settings.get("local") else []
    )
    unreachable: set[str] = set()  # stores are waited for once: a run may have all of its data
    for number, stream in enumerate(given):
        if stream is None or (stream.remote and stream._local and fetch.downloads_itself(stream)):
            full = _with_defaults(stream, settings)
            _have_index(full, f"stream {number}", world.rank, unreachable)


@contextmanager
def index_errors_named(remote: str | None, rank: int) -> Iterator[None]:
    """Raise what goes wrong with a store inside as errors of this package: for indices that
    Streaming fetches.

    Raises:
        StoreError: Instead of the store's own.
    """
    try:
        yield
    except Exception as error:
        torn = isinstance(error, ValueError) and "Index file at" in str(error)
        if not torn and not is_of_a_store(error):
            raise
        cause = CorruptError(f"{error}; remove that file") if torn else error
        raise store_error(
            cause, f"{get_index_basename()} of {remote or 'a stream'}, rank {rank}"
        ) from None


def _with_defaults(stream: Stream | None, settings: Mapping[str, Any]) -> Stream:
    """A stream of its own with what the data set's arguments leave open; one that is the
    arguments', for None.
    """
    own = (
        {}
        if stream is None
        else {"remote": stream.remote, "local": stream.local, "split": stream.split or None}
    )
    if stream is not None:
        own |= {
            "download_retry": stream._download_retry,
            "download_timeout": stream._download_timeout,
        }
    defaults = {"split": None, "download_retry": 2, "download_timeout": DEFAULT_TIMEOUT}
    names = ("remote", "local", *defaults)
    chosen = {
        name: own.get(name) if own.get(name) is not None else settings.get(name) for name in names
    }
    return Stream(
        **{name: defaults.get(name) if value is None else value for name, value in chosen.items()}
    )


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
            json.loads(part.read_bytes())
        except ValueError as error:
            raise CorruptError(f"{name} is no JSON: {error}") from error

    fetch.retried(lambda: fetch.fetch_file(stream, name, check), stream, where)
