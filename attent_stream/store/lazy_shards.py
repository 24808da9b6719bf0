"""The readers of a stream's shards, each made where it is used."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np
from streaming.base.format import FileInfo, Reader

from attent_stream.store.index_table import IndexTable
from attent_stream.store.mds_reader import ShardReader

_HELD = 4096  # readers that a process holds of a stream, at most


class LazyReader(ShardReader):
    """A reader that reads its entry of the table when more than its samples are asked for."""

    def __init__(self, table: IndexTable, number: int, samples: int, folder: str, split: str):
        self.samples = samples
        self._lazy = (table, number, folder, split)

    def __getattr__(self, name: str) -> Any:
        lazy = self.__dict__.get("_lazy")
        if lazy is None or name.startswith("__"):
            raise AttributeError(name)
        table, number, folder, split = lazy
        made = ShardReader(
            folder,
            split,
            **table.kinds[table.kind[number]],
            samples=self.samples,
            raw_data=_file(table, "raw", number),
            zip_data=None if table.zip_bytes[number] < 0 else _file(table, "zip", number),
        )
        # At once: threads share readers. Two that meet here do the same.
        self.__dict__.update(made.__dict__)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(name) from None


class LazyShards(Sequence[Reader]):
    """The readers of a stream.

    Args:
        table: Its shards.
        folder: Where the files are cached.
        split: Sub-folder.
    """

    def __init__(self, table: IndexTable, folder: str, split: str) -> None:
        self.table, self._folder, self._split = table, folder, split
        self._held: dict[int, LazyReader] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Reader]:
        table, folder, split = self.table, self._folder, self._split
        same: dict[int, int] = {}  # one object for each count, as Streaming lists all counts
        for first in range(0, len(table), _HELD):
            for number, samples in enumerate(table.samples[first : first + _HELD].tolist(), first):
                yield LazyReader(table, number, same.setdefault(samples, samples), folder, split)

    @overload
    def __getitem__(self, at: int) -> Reader: ...

    @overload
    def __getitem__(self, at: slice) -> list[Reader]: ...

    def __getitem__(self, at: int | slice) -> Reader | list[Reader]:
        if isinstance(at, slice):
            return [self.reader(number) for number in range(*at.indices(len(self)))]
        found = self._held.get(at)
        if found is not None:
            return found
        if not -len(self) <= at < len(self):
            raise IndexError(f"expected a shard below {len(self)}, got {at}")
        if len(self._held) >= _HELD:
            self._held.clear()
        found = self._held[at] = self.reader(int(at) % len(self))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}}

    def examples(self) -> list[Reader]:
        """A reader of each kind of shards."""
        _, first = np.unique(self.table.kind, return_index=True)
        return [self[number] for number in sorted(first.tolist())]

    def raw_size(self) -> int:
        """Bytes of all files, decompressed."""
        return int(self.table.raw_bytes.sum())

    def stored_hashes(self) -> Iterator[dict[str, str]]:
        """The hashes of each shard's stored file: the compressed one, if there is one."""
        table = self.table
        raw, zipped = (
            list(one) or [""] * len(self) for one in (table.raw_hashes, table.zip_hashes)
        )
        for number, size in enumerate(table.zip_bytes.tolist()):
            given = raw[number] if size < 0 else zipped[number]
            yield json.loads(given) if given else {}

    def reader(self, number: int) -> LazyReader:
        """A reader that is not kept."""
        samples = int(self.table.samples[number])
        return LazyReader(self.table, number, samples, self._folder, self._split)


class ListedShards(list[Reader]):
    """The readers of a stream that are made already."""

    def examples(self) -> list[Reader]:
        """All of them."""
        return self

    def raw_size(self) -> int:
        """Bytes of all files, decompressed."""
        return sum(shard.get_raw_size() for shard in self)

    def stored_hashes(self) -> Iterator[dict[str, str]]:
        """See ``LazyShards``."""
        for raw, zipped in (pair for shard in self for pair in shard.file_pairs):
            yield (zipped or raw).hashes


class ShardList(Sequence[Reader]):
    """The shards of all streams, one after the other. Streaming adds each stream's with ``+=``."""

    def __init__(self, parts: Sequence[Sequence[Reader]] = ()) -> None:
        self._parts: list[LazyShards | ListedShards] = []
        self._ends: list[int] = []
        for part in parts:
            self += part

    def __iadd__(self, part: Sequence[Reader]) -> "ShardList":
        if len(part):
            self._parts.append(part if isinstance(part, LazyShards) else ListedShards(part))
            self._ends.append(len(self) + len(part))
        return self

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Reader]:
        return chain.from_iterable(self._parts)

    @overload
    def __getitem__(self, at: int) -> Reader: ...

    @overload
    def __getitem__(self, at: slice) -> "ShardList": ...

    def __getitem__(self, at: int | slice) -> "Reader | ShardList":
        if isinstance(at, slice):
            return self._slice(*at.indices(len(self)))
        if len(self._parts) == 1:
            return self._parts[0][at]
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(f"expected a shard below {len(self)}, got {at}")
        which = bisect_right(self._ends, number)
        return self._parts[which][number - (self._ends[which - 1] if which else 0)]

    def examples(self) -> list[Reader]:
        """Some shards, of each kind at least one."""
        return [shard for part in self._parts for shard in part.examples()]

    def raw_size(self) -> int:
        """Bytes of all files, decompressed."""
        return sum(part.raw_size() for part in self._parts)

    def stored_hashes(self) -> Iterator[dict[str, str]]:
        """The hashes of each stored file: the compressed one, if there is one."""
        return chain.from_iterable(part.stored_hashes() for part in self._parts)

    def _slice(self, first: int, last: int, step: int) -> "ShardList":
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if step == 1 and (first, last) == (begin, end):
                return ShardList([part])  # a whole stream, as Streaming asks for it
            begin = end
        return ShardList([[self[number] for number in range(first, last, step)]])


def _file(table: IndexTable, which: str, number: int) -> FileInfo:
    hashes = getattr(table, f"{which}_hashes")
    given = hashes[number] if len(hashes) else ""
    return FileInfo(
        basename=getattr(table, f"{which}_names")[number],
        bytes=int(getattr(table, f"{which}_bytes")[number]),
        hashes=json.loads(given) if given else {},
    )
