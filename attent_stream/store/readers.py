"""Make a stream's shard readers once, without Streaming's copy of each entry of the index."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.format import Reader, get_index_basename

from attent_stream.store.lazy_shards import LazyShards
from attent_stream.store.node_index import node_table


def read_shards(stream: Stream, world: Any, allow_unsafe_types: bool) -> Sequence[Reader]:
    """Do the same as ``stream.get_shards``, which reads any index that is not of plain MDS shards.

    An index as Streaming's MDSWriter writes it is read once for the node, and its readers are made
    where they are used.

    Args:
        stream: The stream, its defaults applied.
        world: Streaming's ``World`` of this rank.
        allow_unsafe_types: Whether columns may hold pickle.

    Raises:
        Exception: As Streaming raises it.
    """
    path = os.path.join(stream.local, stream.split or "", get_index_basename())
    if type(stream).get_shards is Stream.get_shards and os.path.exists(path):
        table = node_table(Path(path))
        if table is not None:
            return LazyShards(table, stream.local, stream.split)
    return stream.get_shards(world, allow_unsafe_types)


def hand_on(stream: Stream, readers: Sequence[Reader]) -> None:
    """Make the stream's next ``get_shards`` return these readers."""
    stream.get_shards = _Once(stream, readers)
    if isinstance(readers, LazyShards) and type(stream).set_up_local is Stream.set_up_local:
        stream.set_up_local = _SetUp(stream, readers)


class _Once:
    """Replaces a stream's ``get_shards`` for one call."""

    def __init__(self, stream: Stream, readers: Sequence[Reader]) -> None:
        self._stream, self._readers = stream, readers

    def __call__(self, world: Any, allow_unsafe_types: bool) -> Sequence[Reader]:
        del self._stream.get_shards
        return self._readers


class _SetUp:
    """Replaces a stream's ``set_up_local`` for one call: only shards with a file are looked at."""

    def __init__(self, stream: Stream, readers: LazyShards) -> None:
        self._stream, self._readers = stream, readers

    def __call__(self, shards: Sequence[Reader], usage: NDArray[np.int64]) -> None:
        stream, table = self._stream, self._readers.table
        del stream.set_up_local
        folder = os.path.join(stream.local, stream.split)
        listing = {
            os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
        }
        begin = len(os.path.join(folder, ""))
        names = {path[begin:] for path in listing}
        zipped = np.array([bool(kind["compression"]) for kind in table.kinds])[table.kind]
        zipped |= table.zip_bytes >= 0
        here = np.fromiter((name in names for name in table.raw_names), bool, len(table))
        usage[:] = np.where(here & ~zipped, table.raw_bytes, 0)
        for number, name in enumerate(table.zip_names):
            here[number] |= bool(name) and name in names
        for number in np.flatnonzero(here & zipped).tolist():
            shard = self._readers.reader(number)
            usage[number] = shard.set_up_local(listing, stream.safe_keep_zip)
