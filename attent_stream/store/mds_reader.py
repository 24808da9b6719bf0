"""Read the samples of an MDS shard."""

import os
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from streaming.base.format.mds import MDSReader
from streaming.base.format.mds.encodings import _get_coder

_SIZE = struct.Struct("<I")
_ENDS = struct.Struct("<II")


class ShardReader(MDSReader):
    """Reads the samples that ``MDSReader`` reads, in half of its time.

    ``MDSReader`` parses the name of a column's encoding again for each sample, and reads through
    Python's file objects.
    """

    def get_sample_data(self, idx: int) -> bytes:
        """See ``MDSReader``."""
        return self.open().read(idx)

    def open(self) -> "ShardFile":
        """Open the shard's raw file.

        Raises:
            FileNotFoundError: It is not in the cache.
        """
        return ShardFile(os.path.join(self.dirname, self.split, self.raw_data.basename))

    def decode_sample(self, data: bytes) -> dict[str, Any]:
        """See ``MDSReader``."""
        return self.decoder()(data)

    def decoder(self) -> Callable[[bytes], dict[str, Any]]:
        """A function that decodes samples of this shard, and of others with the same columns."""
        return _decoder(
            tuple(self.column_names), tuple(self.column_encodings), tuple(self.column_sizes)
        )


class ShardFile:
    """An open shard. It is closed with the last reference to it, so threads may share it.

    Args:
        path: The raw file.

    Raises:
        OSError: It cannot be opened.
    """

    _file = -1  # where opening failed
    _close = staticmethod(os.close)  # when Python ends, names of modules are gone

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if self._file >= 0:
            self._close(self._file)

    def read(self, idx: int) -> bytes:
        """The bytes of a sample.

        Raises:
            IndexError: The file has no such sample.
        """
        ends = os.pread(self._file, _ENDS.size, _SIZE.size * (1 + idx))
        begin, end = _ENDS.unpack(ends) if len(ends) == _ENDS.size else (0, 0)
        data = os.pread(self._file, end - begin, begin)
        while 0 < len(data) < end - begin:  # one call reads at most 2 GB
            more = os.pread(self._file, end - begin - len(data), begin + len(data))
            if not more:
                break
            data += more
        if not data:
            name = os.path.basename(self._path)
            raise IndexError(f"Relative sample index {idx} is not present in the {name} file.")
        return data


@lru_cache(maxsize=64)
def _decoder(
    names: tuple[str, ...], encodings: tuple[str, ...], sizes: tuple[int | None, ...]
) -> Callable[[bytes], dict[str, Any]]:
    """Decode samples of some columns. The sizes of those that vary stand before the values."""
    decodes = [_coder(encoding).decode for encoding in encodings]
    columns = list(zip(names, decodes, sizes, strict=False))
    head = _SIZE.size * sum(not size for size in sizes)

    def decode(data: bytes) -> dict[str, Any]:
        sample, at, begin = {}, 0, head
        for name, value, size in columns:
            if not size:
                (size,) = _SIZE.unpack_from(data, at)
                at += _SIZE.size
            end = begin + size
            sample[name] = value(data[begin:end])
            begin = end
        return sample

    return decode


def _coder(encoding: str) -> Any:
    """The coder of an encoding, which has no state."""
    coder = _get_coder(encoding)
    if coder is None:
        raise ValueError(f"Unsupported encoding: {encoding}.")
    return coder
