"""Shards that a process keeps open, as opening a file takes longer than reading a sample."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from streaming.base.format import Reader

from attent_stream.base.open_files import is_out_of_files
from attent_stream.store.mds_reader import ShardFile, ShardReader

_Open = tuple[ShardFile, Callable[[bytes], dict[str, Any]]]  # a shard and its decoder

LIMIT = 64  # an order mixes about as many shards


class OpenShards:
    """The shards that were opened last. Only for a cache that evicts none.

    A process that is out of file descriptors closes them all before it opens one more.

    Args:
        limit: Most shards that are open.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held: OrderedDict[int, _Open] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_held": OrderedDict()}

    def close(self) -> None:
        """Close all that is not being read."""
        self._held.clear()

    def get_item(self, shards: Sequence[Reader], shard: int, index: int) -> Any:
        """Read a sample.

        Args:
            shards: The readers of all shards.
            shard: Number of its shard.
            index: Its index in the shard.

        Raises:
            FileNotFoundError: The shard is not in the cache.
        """
        held = self._held.get(shard)
        if held is None:
            reader = shards[shard]
            if not isinstance(reader, ShardReader):
                return reader.get_item(index)
            held = self._opened(reader), reader.decoder()
            self._held[shard] = held
            if len(self._held) > self._limit:
                self._held.popitem(last=False)
        file, decode = held
        return decode(file.read(index))

    def _opened(self, reader: ShardReader) -> ShardFile:
        try:
            return reader.open()
        except OSError as error:
            if not is_out_of_files(error) or not self._held:
                raise
            self.close()
            return reader.open()
