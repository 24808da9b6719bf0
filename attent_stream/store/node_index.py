"""One table of an index for all processes of a node."""

import hashlib
import logging
import os
import socket
import tempfile
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout
from streaming.base.format import FileInfo

from attent_stream.store.index_entries import UnusualIndexError, read_table
from attent_stream.store.index_table import BadTableError, IndexTable
from attent_stream.store.limits import FILE_LIMIT, MDS_LIMIT, OFFSET, name_is_inside
from attent_stream.store.mds_reader import ShardReader

_SHARED = 1 << 20  # bytes of an index from which its table is shared by the node's processes
_KEPT = 30 * 86_400.0  # seconds that a table is kept without use
_PATIENCE = 600.0  # seconds to wait for the process that makes the table

log = logging.getLogger(__name__)


def node_table(index: Path) -> IndexTable | None:
    """The shards of an index. Of a large index the first process of the node makes the table, and
    the others map it.

    Args:
        index: The ``index.json``.

    Returns:
        None if it is not as Streaming's MDSWriter writes it, or is not to be trusted: then
        Streaming reads it, and what is wrong is said.
    """
    try:
        return _node_table(index)
    except UnusualIndexError as error:
        log.debug("The index is read as Streaming reads it: %s", error)
        return None


def _node_table(index: Path) -> IndexTable | None:
    if index.stat().st_size < _SHARED:
        return _sound(read_table(index))
    try:
        path = _path_of(index)
        found = _mapped(path)
        if found is not None:
            return found
        with FileLock(f"{path}.lock", timeout=_PATIENCE):
            found = _mapped(path)  # another process has made it meanwhile
            if found is not None:
                return found
            table = _sound(read_table(index))
            if table is None:
                return None
            table.save(path)
            _remove_old(path)
            return IndexTable.load(path)
    except (OSError, BadTableError, Timeout) as error:
        log.info("The index %s is read by each process of its own: %s", index, error)
        return _sound(read_table(index))


def _mapped(path: Path) -> IndexTable | None:
    """The table of a file; None if there is none, or a damaged one."""
    try:
        found = IndexTable.load(path)
    except (FileNotFoundError, BadTableError):
        return None
    with suppress(OSError):
        os.utime(path)  # it is in use
    return found


def _remove_old(path: Path) -> None:
    """Remove tables of the same index, and those that were not used for long."""
    place, before = path.name.partition("-")[0], time.time() - _KEPT
    for old in path.parent.glob("*.table"):
        with suppress(OSError):
            if old != path and (old.name.startswith(place) or old.stat().st_mtime < before):
                old.unlink()
                Path(f"{old}.lock").unlink(missing_ok=True)


def _path_of(index: Path) -> Path:
    """Where the table is: in a folder of this user's, by the node, and the index's place and state.

    Raises:
        OSError: The folder cannot be made, or is another user's.
    """
    folder = Path(tempfile.gettempdir()) / f"attent_index_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} can be written by others")
    about = index.stat()
    place = _digest(socket.gethostname(), str(index.resolve()))
    state = _digest(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
    return folder / f"{place}-{state}.table"


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:24]


def _sound(table: IndexTable) -> IndexTable | None:
    """The table, or None if a size, a count or a name is not to be trusted."""
    raw, zipped = table.raw_bytes, table.zip_bytes
    fits = (raw > 0) & (raw <= MDS_LIMIT) & (zipped != 0) & (zipped <= FILE_LIMIT)
    counts = (table.samples >= 0) & (table.samples <= raw // OFFSET)
    if not (fits & counts).all():
        return None
    names = chain(table.raw_names, filter(None, table.zip_names))  # "" where there is no file
    if not all(map(name_is_inside, names)):
        return None
    file = FileInfo(basename="x", bytes=1, hashes={})
    try:
        for kind in table.kinds:
            ShardReader("", "", **kind, samples=1, raw_data=file, zip_data=None)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return table
