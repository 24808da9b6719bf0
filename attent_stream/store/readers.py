"""Make a stream's shard readers once, without Streaming's copy of each entry of the index."""

import json
import os
import struct
from functools import lru_cache
from typing import Any

from streaming import Stream
from streaming.base.format import FileInfo, Reader, get_index_basename
from streaming.base.format.mds import MDSReader
from streaming.base.format.mds.encodings import _get_coder

_SUPPORTED = 2  # version of an index
_SIZE = struct.Struct("<I")
_ENDS = struct.Struct("<II")


class ShardReader(MDSReader):
    """Reads the samples that ``MDSReader`` reads, in half of its time.

    ``MDSReader`` parses the name of a column's encoding again for each sample, and reads through
    Python's file objects.
    """

    def get_sample_data(self, idx: int) -> bytes:
        """See ``MDSReader``."""
        path = os.path.join(self.dirname, self.split, self.raw_data.basename)
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            ends = os.pread(file, _ENDS.size, _SIZE.size * (1 + idx))
            begin, end = _ENDS.unpack(ends) if len(ends) == _ENDS.size else (0, 0)
            data = os.pread(file, end - begin, begin)
            while 0 < len(data) < end - begin:  # one call reads at most 2 GB
                more = os.pread(file, end - begin - len(data), begin + len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(file)
        if not data:
            raise IndexError(
                f"Relative sample index {idx} is not present in the {self.raw_data.basename} file."
            )
        return data

    def decode_sample(self, data: bytes) -> dict[str, Any]:
        """See ``MDSReader``."""
        sizes, at = [], 0
        for size in self.column_sizes:
            if not size:
                (size,) = _SIZE.unpack_from(data, at)
                at += _SIZE.size
            sizes.append(size)
        sample = {}
        columns = zip(self.column_names, self.column_encodings, sizes, strict=False)
        for name, encoding, size in columns:
            sample[name] = _coder(encoding).decode(data[at : at + size])
            at += size
        return sample


@lru_cache(maxsize=256)
def _coder(encoding: str) -> Any:
    """The coder of an encoding, which has no state."""
    coder = _get_coder(encoding)
    if coder is None:
        raise ValueError(f"Unsupported encoding: {encoding}.")
    return coder


def read_shards(stream: Stream, world: Any, allow_unsafe_types: bool) -> list[Reader]:
    """Do the same as ``stream.get_shards``, which reads any index that is not of plain MDS shards.

    Args:
        stream: The stream, its defaults applied.
        world: Streaming's ``World`` of this rank.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        Exception: As Streaming raises it.
    """
    path = os.path.join(stream.local, stream.split or "", get_index_basename())
    readers = None
    if type(stream).get_shards is Stream.get_shards and os.path.exists(path):
        readers = _mds_readers(stream, path, allow_unsafe_types)
    return stream.get_shards(world, allow_unsafe_types) if readers is None else readers


def hand_on(stream: Stream, readers: list[Reader]) -> None:
    """Make the stream's next ``get_shards`` return these readers."""
    stream.get_shards = _Once(stream, readers)


class _Once:
    """Replaces a stream's ``get_shards`` for one call."""

    def __init__(self, stream: Stream, readers: list[Reader]) -> None:
        self._stream, self._readers = stream, readers

    def __call__(self, world: Any, allow_unsafe_types: bool) -> list[Reader]:
        del self._stream.get_shards
        return self._readers


def _mds_readers(stream: Stream, path: str, allow_unsafe_types: bool) -> list[Reader] | None:
    """Make the readers of an index by Streaming's MDSWriter; None for any other index."""
    try:
        with open(path) as file:
            index = json.load(file)
        if index["version"] != _SUPPORTED:
            return None
        entries, readers, columns = index.pop("shards"), [], None
        for number, entry in enumerate(entries):
            entries[number] = None  # free its memory; the reader has it
            if entry.pop("version") != _SUPPORTED or entry.pop("format") != "mds":
                return None
            mine = {
                name: entry.pop(name)
                for name in ("column_names", "column_encodings", "column_sizes", "hashes")
            }
            fresh = mine != columns
            if fresh:  # shards with equal columns share them
                columns = mine
            for key in ("raw_data", "zip_data"):
                info = entry.pop(key)
                entry[key] = FileInfo(**info) if info else None
            reader = ShardReader(stream.local, stream.split, **entry, **columns)
            if fresh:
                reader.validate(allow_unsafe_types)
            readers.append(reader)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None  # Streaming reports what is wrong
    return readers
