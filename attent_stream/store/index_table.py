"""The shards of an index as arrays, in one file that all processes of a node map.

A reader object takes 1 kB and its entry of an ``index.json`` 20 us, in each process. Here a shard
takes some 50 bytes once for the node, and a reader is made where one is used.
"""

import json
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"attent-index-1\n"
_LENGTH = struct.Struct("<QI")  # bytes of the head, and a checksum of all that follows
_ALIGNED = 64  # bytes
_CHUNK = 4096  # strings


class BadTableError(ValueError):
    """A file is not a whole table."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Strings in one array.

    Args:
        data: Their UTF-8 bytes one after the other, uint8.
        ends: Where each ends, int64 of shape (n,).
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __getitem__(self, number: int) -> str:
        begin = int(self.ends[number - 1]) if number else 0
        return self.data[begin : int(self.ends[number])].tobytes().decode()

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        begin = 0
        for first in range(0, len(self), _CHUNK):
            ends = self.ends[first : first + _CHUNK].tolist()
            data, offset = self.data[begin : ends[-1]].tobytes(), begin
            for end in ends:
                yield data[begin - offset : end - offset].decode()
                begin = end


class GrowingTexts:
    """Strings that are added one after the other."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        """Add a string."""
        self._data += text.encode()
        self._ends.append(len(self._data))

    def texts(self) -> Texts:
        """All of them; none if all are empty. No more can be added then."""
        if not self._data:
            return Texts(data=np.zeros(0, np.uint8), ends=np.zeros(0, np.int64))
        data = np.frombuffer(self._data, np.uint8)
        return Texts(data=data, ends=np.frombuffer(self._ends, np.int64))


@dataclass(frozen=True, kw_only=True)
class IndexTable:
    """The shards of a stream.

    Args:
        kinds: What many shards have in common: ``column_names``, ``column_encodings``,
            ``column_sizes``, ``hashes``, ``compression`` and ``size_limit``.
        kind: Which of these each shard has, int32 of shape (n,).
        samples: Samples of each shard, int64.
        raw_bytes: Bytes of its file, int64.
        zip_bytes: Bytes of its compressed file, int64; -1 if it has none.
        raw_names: Names of files.
        zip_names: Names of compressed files, "" if there is none.
        raw_hashes: The hashes of files as JSON; empty if no file has any.
        zip_hashes: The same of compressed files.
        path: The file that the arrays are mapped from; None if they are in memory.
    """

    kinds: tuple[dict[str, Any], ...]
    kind: NDArray[np.int32]
    samples: NDArray[np.int64]
    raw_bytes: NDArray[np.int64]
    zip_bytes: NDArray[np.int64]
    raw_names: Texts
    zip_names: Texts
    raw_hashes: Texts
    zip_hashes: Texts
    path: Path | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.samples)

    def __reduce__(self) -> tuple[Any, ...]:
        """For spawned workers: the file is mapped again."""
        if self.path is not None and self.path.exists():
            return IndexTable.load, (self.path,)
        return _made, (self.kinds, {name: np.array(one) for name, one in self._arrays()})

    def save(self, path: Path) -> None:
        """Write a file whole, in place of one of that name.

        Raises:
            OSError: It cannot be written.
        """
        places, at = {}, 0
        arrays = [(name, np.ascontiguousarray(one)) for name, one in self._arrays()]
        for name, one in arrays:
            places[name] = [one.dtype.str, at, len(one)]
            at += -(-one.nbytes // _ALIGNED) * _ALIGNED
        head = json.dumps({"kinds": self.kinds, "arrays": places, "size": at}).encode()
        begin, crc = _begin(len(head)), zlib.crc32(head)
        for _, one in arrays:
            crc = zlib.crc32(one.view(np.uint8).data, crc)
        half = path.with_name(f"{path.name}.{os.getpid()}.half")
        try:
            with open(half, "wb") as file:
                file.write(_MAGIC + _LENGTH.pack(len(head), crc) + head)
                for name, one in arrays:
                    file.seek(begin + places[name][1])
                    file.write(one.data)
                file.truncate(begin + at)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, path)
        finally:
            half.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "IndexTable":
        """Map a file.

        Raises:
            BadTableError: It is no whole table.
            OSError: It cannot be read.
        """
        with open(path, "rb") as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file
                raise BadTableError(f"{path} is empty") from error
        start = len(_MAGIC) + _LENGTH.size
        if len(mapped) < start or mapped[: len(_MAGIC)] != _MAGIC:
            raise BadTableError(f"{path} is no table of this version")
        length, expected = _LENGTH.unpack(mapped[len(_MAGIC) : start])
        try:
            text = mapped[start : start + length]
            head, crc, begin = json.loads(text), zlib.crc32(text), _begin(length)
            arrays = {}
            if len(mapped) != begin + head["size"]:
                raise BadTableError(f"{path} is cut short")
            for name, (dtype, at, count) in head["arrays"].items():
                one = np.frombuffer(mapped, np.dtype(dtype), count, begin + at)
                crc = zlib.crc32(one.view(np.uint8).data, crc)
                arrays[name] = one
        except (ValueError, KeyError, TypeError) as error:
            raise BadTableError(f"{path} is no whole table: {error}") from error
        if crc != expected:
            raise BadTableError(f"{path} is damaged")
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # what was looked at now is not needed soon
        return _made(head["kinds"], arrays, path)

    def _arrays(self) -> list[tuple[str, NDArray]]:
        listed: list[tuple[str, NDArray]] = []
        for name, one in vars(self).items():
            if isinstance(one, np.ndarray):
                listed.append((name, one))
            elif isinstance(one, Texts):
                listed += [(f"{name}.data", one.data), (f"{name}.ends", one.ends)]
        return listed


def _begin(length: int) -> int:
    """Where the arrays begin, after a head of so many bytes."""
    return -(-(len(_MAGIC) + _LENGTH.size + length) // _ALIGNED) * _ALIGNED


def _made(
    kinds: Sequence[dict[str, Any]], arrays: Mapping[str, NDArray], path: Path | None = None
) -> IndexTable:
    given: dict[str, Any] = {name: one for name, one in arrays.items() if "." not in name}
    for name in {name.partition(".")[0] for name in arrays if "." in name}:
        given[name] = Texts(data=arrays[f"{name}.data"], ends=arrays[f"{name}.ends"])
    return IndexTable(kinds=tuple(kinds), **given, path=path)
