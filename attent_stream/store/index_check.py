"""Check the names, sizes and column types in an index before anything uses them.

An ``index.json`` comes from the store, so it is not trusted. Streaming writes, and on eviction
removes, ``local/split/<name>`` for any file name, and allocates arrays by the index's counts. By
default it refuses pickle only if the encoding is exactly ``pkl``.
"""

import os
import tempfile
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any

from streaming import Stream, StreamingDataset
from streaming.base.format import Reader
from streaming.base.format.base import FileInfo
from streaming.base.format.mds import MDSReader
from streaming.base.format.mds.encodings import get_mds_encodings, is_mds_encoding_safe

from attent_stream.base.redaction import masked_text
from attent_stream.store import fetch
from attent_stream.store.lazy_shards import LazyShards, ShardList
from attent_stream.store.limits import FILE_LIMIT, MDS_LIMIT, OFFSET, name_is_inside
from attent_stream.store.readers import hand_on, read_shards
from attent_stream.store.shared_memory import ClosesMemory

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
    """Mixin before ``StreamingDataset`` that checks the indices of all streams.

    StreamingDataset sets ``streams`` once, after applying their defaults and before using any
    index.
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

    @property
    def shards(self) -> ShardList:
        """The readers of all shards. Streaming begins with none, and adds each stream's."""
        return self.__dict__["shards"]

    @shards.setter
    def shards(self, shards: Sequence[Reader]) -> None:
        self.__dict__["shards"] = shards if isinstance(shards, ShardList) else ShardList([shards])


class CheckedDataset(CheckedStreams, ClosesMemory, StreamingDataset):
    """Streaming's data set with checked indices, whose memory is closed when it is collected."""


def keep_private(stream: Stream) -> None:
    """Deny other users access to a cache folder that Streaming made in the temporary folder.

    Raises:
        PermissionError: The folder belongs to another user.
    """
    if stream._local is None and stream.local == stream._get_temporary_directory():
        shared = tempfile.gettempdir()
        top = os.path.relpath(stream.local, shared).split(os.sep)[0]
        os.chmod(os.path.join(shared, top), 0o700)


def check_stream(stream: Stream, number: int, world: Any, allow_unsafe_types: bool) -> None:
    """Fetch and check a stream's index, and keep its readers for the stream's ``get_shards``.

    Args:
        stream: The stream, its defaults applied.
        number: The stream's number, for messages.
        world: Streaming's ``World`` of this rank.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        ValueError: The index is malformed, or ``check_shards`` refuses it.
    """
    source = os.path.join(stream.remote or stream.local, stream.split)
    name = masked_text(f"stream {number} ({source})")
    try:
        shards = read_shards(stream, world, True)  # unsafe types are checked below
    except _WRONG as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"{name}: expected an index.json by Streaming's writers, but reading it failed with "
            f"{reason}"
        ) from error
    except ValueError as error:  # a setting of the stream, or another version
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
    check_shards(shards, name, allow_unsafe_types)
    hand_on(stream, shards)


def check_shards(shards: Sequence[Reader], stream: str, allow_unsafe_types: bool) -> None:
    """Check an index's columns, file names, sizes and counts.

    Args:
        shards: Streaming's readers, as built from the index.
        stream: Name of the stream for messages.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        ValueError: A column runs code when it is read or has an unknown encoding, a file name
            leaves the stream's folder, or a count or size is impossible.
    """
    if isinstance(shards, LazyShards):  # the rest was checked when the table was made
        for kind in shards.table.kinds:
            columns = (kind["column_names"], kind["column_encodings"], kind["column_sizes"])
            _check_columns(*columns, stream, allow_unsafe_types)
        return
    columns = None
    for number, shard in enumerate(shards):
        where = f"{stream}: shard {number} of index.json"
        if isinstance(shard, MDSReader):
            mine = (shard.column_names, shard.column_encodings, shard.column_sizes)
            if mine != columns:  # usually all shards have the same
                _check_columns(*mine, stream, allow_unsafe_types)
                columns = mine
        limit = MDS_LIMIT if isinstance(shard, MDSReader) else FILE_LIMIT
        for raw, zipped in shard.file_pairs:
            _check_file(raw, limit, where)
            if zipped is not None:
                _check_file(zipped, FILE_LIMIT, where)
        size = sum(raw.bytes for raw, _ in shard.file_pairs)
        if not _is_count(shard.samples) or shard.samples * OFFSET > size:
            raise ValueError(
                f"{where}: expected 0 to {size // OFFSET} samples in {size} bytes, got "
                f"{_short(shard.samples)}"
            )


def _check_columns(
    names: Any, encodings: Any, sizes: Any, stream: str, allow_unsafe_types: bool
) -> None:
    lists = all(isinstance(part, list) for part in (names, encodings, sizes))
    if not lists or not len(names) == len(encodings) == len(sizes) or not names:
        raise ValueError(
            f"{stream}: expected as many column names as encodings and sizes in index.json, and at "
            "least one"
        )
    for name, encoding, size in zip(names, encodings, sizes, strict=True):
        kind = encoding.partition(":")[0] if isinstance(encoding, str) else encoding
        if kind not in get_mds_encodings():
            raise ValueError(
                f"{stream}: column {_short(name)} has the unknown encoding {_short(encoding)}"
            )
        if not (is_mds_encoding_safe(kind) or allow_unsafe_types):
            raise ValueError(
                f"{stream}: column {_short(name)} contains an unsafe type, because reading "
                f"{_short(encoding)} runs code from the data: write it again with another "
                "encoding, or pass allow_unsafe_types=True if you trust the writer"
            )
        if size is not None and not (_is_count(size) and size < MDS_LIMIT):
            raise ValueError(
                f"{stream}: expected a size of column {_short(name)} under {MDS_LIMIT} bytes, got "
                f"{_short(size)}"
            )


def _check_file(file: FileInfo | None, limit: int, where: str) -> None:
    if file is None:
        raise ValueError(f"{where}: expected a raw file, got none")
    name = file.basename
    if not name_is_inside(name):
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
