"""A stream's index, distrusted: names, sizes and column types are checked before anything is read,
made or removed by them.

An ``index.json`` comes from the store. Streaming takes its file names as they are (it writes, and
on eviction removes, ``local/split/<name>``), sizes arrays by its counts, and by default refuses the
encoding ``pkl``, by that exact word.
"""

import os
import tempfile
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import PurePosixPath
from typing import Any

from streaming import Stream, StreamingDataset
from streaming.base.format import Reader, get_index_basename
from streaming.base.format.base import FileInfo
from streaming.base.format.mds import MDSReader
from streaming.base.format.mds.encodings import get_mds_encodings, is_mds_encoding_safe

from attent_stream.base.redaction import masked_text
from attent_stream.store import fetch
from attent_stream.store.readers import hand_on, read_shards
from attent_stream.store.shared_memory import ClosesMemory

_FILE_LIMIT = 1 << 40  # bytes of any shard file; of an MDS one, whose offsets are uint32, 4 GiB
_MDS_LIMIT = 1 << 32
_OFFSET = 4  # bytes that every format spends on a sample, whatever is in it
_NAME_LIMIT = 255  # bytes of a file's name
_WRONG = (
    AssertionError,
    AttributeError,
    JSONDecodeError,
    KeyError,
    RecursionError,
    TypeError,
    UnicodeDecodeError,
)


class CheckedStreams:
    """Mixin before ``StreamingDataset``: refuses a stream whose index can't be trusted, when the
    data set is constructed.

    StreamingDataset sets ``streams`` once, when all their defaults are known and before it believes
    any index.
    """

    @property
    def streams(self) -> list[Stream]:
        """The streams of the data set."""
        return self.__dict__["streams"]

    @streams.setter
    def streams(self, streams: list[Stream]) -> None:
        for number, stream in enumerate(streams):
            keep_private(stream)
            fetch.protect(stream)
            check_stream(stream, number, self._unique_rank_world, self.allow_unsafe_types)
        self.__dict__["streams"] = streams


class CheckedDataset(CheckedStreams, ClosesMemory, StreamingDataset):
    """Streaming's own data set with ``CheckedStreams``' checks, closed when it is collected."""


def keep_private(stream: Stream) -> None:
    """Close a cache folder that Streaming made in the temporary folder of all users, by its own
    default, to the others.

    Raises:
        PermissionError: It belongs to another user.
    """
    if stream._local is None and stream.local == stream._get_temporary_directory():
        top = os.path.join(
            tempfile.gettempdir(),
            os.path.relpath(stream.local, tempfile.gettempdir()).split(os.sep)[0],
        )
        os.chmod(top, 0o700)


def check_stream(stream: Stream, number: int, world: Any, allow_unsafe_types: bool) -> None:
    """Fetch a stream's index, as Streaming does, check it, and hand its readers on to whoever asks
    the stream for them next.

    Args:
        stream: The stream, its defaults applied.
        number: Its place among the data set's, for the message.
        world: Streaming's ``World`` of this rank.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        ValueError: The index is malformed, or ``check_shards`` refuses it; the message names the
            stream.
    """
    name = masked_text(
        f"stream {number} ({os.path.join(stream.remote or stream.local, stream.split)})"
    )
    try:
        shards = read_shards(stream, world, True)  # reads no shard; their own check comes below
    except _WRONG as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"{name}: expected an index.json that Streaming's writers made, got one that fails "
            f"with {reason}"
        ) from error
    except ValueError as error:  # a setting of the stream, or another version
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
    check_shards(shards, name, allow_unsafe_types)
    hand_on(stream, shards)


def check_shards(shards: Sequence[Reader], stream: str, allow_unsafe_types: bool) -> None:
    """Check what an index says of its shards.

    Args:
        shards: Streaming's readers, as built from the index.
        stream: How to call the stream in a message.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        ValueError: A column that runs code when it is read, an unknown encoding, a file name that
            leaves the stream's folder, a count or size that can't be.
    """
    columns = None
    for number, shard in enumerate(shards):
        where = f"{stream}: shard {number} of index.json"
        if isinstance(shard, MDSReader):
            mine = (shard.column_names, shard.column_encodings, shard.column_sizes)
            if mine != columns:  # as a rule all shards have the same
                _check_columns(*mine, stream, allow_unsafe_types)
                columns = mine
        limit = _MDS_LIMIT if isinstance(shard, MDSReader) else _FILE_LIMIT
        for raw, zipped in shard.file_pairs:
            _check_file(raw, limit, where)
            if zipped is not None:
                _check_file(zipped, _FILE_LIMIT, where)
        size = sum(raw.bytes for raw, _ in shard.file_pairs)
        if not _is_count(shard.samples) or shard.samples * _OFFSET > size:
            raise ValueError(
                f"{where}: expected 0 to {size // _OFFSET} samples in {size} bytes, got "
                f"{_short(shard.samples)}"
            )


def _check_columns(
    names: Any, encodings: Any, sizes: Any, stream: str, allow_unsafe_types: bool
) -> None:
    lists = all(isinstance(part, list) for part in (names, encodings, sizes))
    if not lists or not len(names) == len(encodings) == len(sizes) or not names:
        raise ValueError(
            f"{stream}: expected as many column names as encodings and sizes, at least one, in "
            "index.json"
        )
    for name, encoding, size in zip(names, encodings, sizes, strict=True):
        kind = encoding.partition(":")[0] if isinstance(encoding, str) else encoding
        if kind not in get_mds_encodings():
            raise ValueError(
                f"{stream}: column {_short(name)} has the unknown encoding {_short(encoding)}"
            )
        if not (is_mds_encoding_safe(kind) or allow_unsafe_types):
            raise ValueError(
                f"{stream}: column {_short(name)} is encoded as {_short(encoding)}, which runs "
                "code of whoever wrote it when it "
                f"is read, so it contains an unsafe type: write it anew with another encoding, or "
                f"pass allow_unsafe_types=True if you trust the writer"
            )
        if size is not None and not (_is_count(size) and size < _MDS_LIMIT):
            raise ValueError(
                f"{stream}: expected a size of column {_short(name)} under {_MDS_LIMIT} bytes, got "
                f"{_short(size)}"
            )


def _check_file(file: FileInfo | None, limit: int, where: str) -> None:
    if file is None:
        raise ValueError(f"{where}: expected a raw file, got none")
    name = file.basename
    inside = (
        isinstance(name, str)
        and bool(name)
        and not set(name) & {"\0", "\\"}
        and not name.startswith("/")
    )
    parts = name.split("/") if inside else []
    inside = (
        inside
        and not set(parts) & {"", ".", ".."}
        and all(len(part.encode()) <= _NAME_LIMIT for part in parts)
    )
    if not inside or PurePosixPath(name).name == get_index_basename():
        raise ValueError(
            f"{where}: expected the name of a shard file inside the stream's folder, got "
            f"{_short(name)}"
        )
    if not (_is_count(file.bytes) and 0 < file.bytes <= limit):
        raise ValueError(
            f"{where}: expected file {name!r} to have 1 to {limit} bytes, got {_short(file.bytes)}"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
