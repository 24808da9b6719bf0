"""Detect that a data set was replaced at the same address after its index was cached.

New shards may differ from the cached index in size or hash. If they do not, old and new samples
would be mixed unnoticed. The contents of the two indices are compared; a replacement with an equal
index is not detected.
"""

import filecmp
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

# Seconds to wait for an index that is only compared; a run with all of its data needs none.
_PATIENCE = 10.0


def check_index(stream: Stream, where: str) -> bool:
    """Compare a stream's cached index with the store's; warn if that fails.

    Args:
        stream: The stream.
        where: Name of the index for messages.

    Returns:
        Whether the store could be reached.

    Raises:
        StaleIndexError: The store has another index.
    """
    try:
        stale = is_stale(stream)
    except Exception as error:  # a run with all of its data must start without the store
        kind = kind_of(error)
        said = " ".join(str(error).split()) or type(error).__name__
        log.warning(
            masked_text(
                f"{where}: the index in {_folder(stream)} could not be compared with the store's "
                f"and is used as is ({said})"
            )
        )
        return kind is not UnreachableError
    if stale:
        raise _error(stream, where)
    return True


def explained(error: StoreError, stream: Stream, where: str) -> StoreError:
    """Return the error, or a StaleIndexError if the store's index has changed."""
    damaged = isinstance(error, (CorruptError, MissingError))
    remote = stream.remote not in (None, stream.local)
    if not (damaged and remote and fetch.downloads_itself(stream)):
        return error
    try:
        return _error(stream, where) if is_stale(stream) else error
    except Exception:  # the error of the shard is more useful
        return error


def is_stale(stream: Stream) -> bool:
    """Whether the store's index differs from the cached one, in one request.

    Raises:
        Exception: They cannot be compared.
    """
    name = get_index_basename()
    mine = _folder(stream) / name
    # A complete cache may be read-only.
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
        return part.path.exists() and _differ(mine, part.path)
    finally:
        part.discard()


def _differ(mine: Path, theirs: Path) -> bool:
    if filecmp.cmp(mine, theirs, shallow=False):
        return False
    try:
        expected = json.loads(theirs.read_bytes())
    except ValueError as error:
        raise CorruptError(
            f"the store's {get_index_basename()} is not valid JSON: {error}"
        ) from error
    try:
        return json.loads(mine.read_bytes()) != expected
    except ValueError:
        return False  # damaged, which is reported where it is read


def _error(stream: Stream, where: str) -> StaleIndexError:
    folder = _folder(stream)
    return StaleIndexError(
        f"{where}: the index in {folder} is older than the store's, so the data set was replaced "
        f"after that folder was filled; remove the folder {folder} and start again, or set no "
        "remote to use the older data"
    )


def _folder(stream: Stream) -> Path:
    return Path(stream.local, stream.split)
