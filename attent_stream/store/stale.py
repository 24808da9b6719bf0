"""Whether the cached index is still the store's: a data set may be replaced at the same address.

New shards then have other sizes or hashes than the cached index says. Or they have the same sizes,
which is worse: old and new samples would be mixed and nobody would notice. Only the content of the
two indices is compared. A data set that was replaced by one with the very same index cannot be told
from the old one.
"""

import json
import logging
import os
import tempfile
from pathlib import Path

from streaming import Stream
from streaming.base.format import get_index_basename

from attent_stream.base.errors import (
    CorruptError,
    MissingError,
    StaleIndexError,
    StoreError,
    UnreachableError,
)
from attent_stream.base.redaction import masked_text
from attent_stream.store import fetch
from attent_stream.store.parts import Part
from attent_stream.store.s3 import FiniteS3Downloader
from attent_stream.store.store_errors import kind_of

log = logging.getLogger(__name__)

# Seconds to wait for an index that is only compared. A run that has all of its data can do without.
_PATIENCE = 10.0


def check_index(stream: Stream, where: str) -> bool:
    """Refuse a cached index that is not the store's.

    Where they cannot be compared it warns, since the cache may be complete.

    Args:
        stream: Whose index is in the cache.
        where: How to name it.

    Returns:
        Whether the store could be reached.

    Raises:
        StaleIndexError: The store has another index.
    """
    try:
        stale = is_stale(stream)
    except (
        Exception
    ) as error:  # whatever it is: a run that has all of its data must start without the store
        kind = kind_of(error)
        said = " ".join(str(error).split()) or type(error).__name__
        log.warning(
            masked_text(
                f"{where}: the index in {_folder(stream)} could not be compared with the store's, "
                f"and is used as it is ({said})"
            )
        )
        return kind is not UnreachableError
    if stale:
        raise _error(stream, where)
    return True


def explained(error: StoreError, stream: Stream, where: str) -> StoreError:
    """The error itself, or, if the index is not the store's any more, one that says so."""
    damaged = isinstance(error, (CorruptError, MissingError)) and stream.remote not in (
        None,
        stream.local,
    )
    if not damaged or not fetch.downloads_itself(stream):
        return error
    try:
        return _error(stream, where) if is_stale(stream) else error
    except Exception:  # what is wrong with the shard is known, and more worth telling
        return error


def is_stale(stream: Stream) -> bool:
    """Whether the store has an index of another content than the cache; one request.

    Raises:
        Exception: They cannot be compared.
    """
    name = get_index_basename()
    mine = (_folder(stream) / name).read_bytes()
    # Not in the cache, which may be read-only once it is complete.
    part = Part(Path(name), folder=Path(tempfile.gettempdir()))
    timeout = min(stream.download_timeout, _PATIENCE)
    remote = os.path.join(stream.remote, stream.split, name)

    def download() -> None:
        if isinstance(stream._downloader, FiniteS3Downloader):
            stream._downloader.download_changed(remote, part.path, mine, timeout)
        else:
            stream._downloader.download(remote, str(part.path), timeout)

    try:
        fetch.download_in_time(download, part, timeout, name)
        return part.path.exists() and _differ(mine, part.path.read_bytes())
    finally:
        part.discard()


def _differ(mine: bytes, theirs: bytes) -> bool:
    if mine == theirs:
        return False
    try:
        expected = json.loads(theirs)
    except ValueError as error:
        raise CorruptError(f"the store's {get_index_basename()} is no JSON: {error}") from error
    try:
        return json.loads(mine) != expected
    except ValueError:
        return False  # damaged rather than old, which is told where it is read


def _error(stream: Stream, where: str) -> StaleIndexError:
    folder = _folder(stream)
    return StaleIndexError(
        f"{where}: the index in {folder} is of older data than the store has now, so the data set "
        f"was replaced after that folder was filled; remove the folder {folder} and start again, "
        f"or give no remote if the older data is wanted and all there"
    )


def _folder(stream: Stream) -> Path:
    return Path(stream.local, stream.split)
