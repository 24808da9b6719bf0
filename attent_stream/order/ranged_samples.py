"""One epoch's shuffled sequence of samples for millions of shards; the set-up is O(ranges).

As ``lazy_samples.py``, with ranges in place of shards: ranges have a random sequence that is the
same in all epochs and is cut evenly into the canonical nodes. In each canonical node they have
another sequence in each epoch, in each of them its shards have one, and samples move within blocks.
What is known of each shard is looked up when its range is read.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.half_blocks import HalfBlocks
from attent_stream.order.lazy_samples import Shuffle, stretches
from attent_stream.order.permutation import permuted
from attent_stream.order.ranges import SHARDS, Ranges, Reads
from attent_stream.order.stream_counts import partial_choice

MANY = 1 << 19  # shards from which on they are not looked at one by one
_RANGES = 16  # of a canonical node, at least
_CHUNK = 1 << 15  # positions at a time, so that intermediate arrays stay in the CPU's cache
_STRETCH = 3  # purpose of keys
_WITHIN_BLOCKS, _WITHIN_STRETCHES = frozenset({"py1e", "py1br"}), frozenset({"py1s", "py2s"})


class _Table(NamedTuple):
    """The stretches of shards of some parts, in the epoch's sequence; arrays of shape (n,)."""

    starts: NDArray[np.int64]  # first position
    length: NDArray[np.int64]
    first: NDArray[np.int64]  # id of the shard's first sample
    skip: NDArray[np.int64]  # samples of the read that come before
    samples: NDArray[np.int64]
    take: NDArray[np.int64]
    key: NDArray[np.uint64]
    part: NDArray[np.int64]


def can_be_ranged(shards: int, canonical_nodes: int, shuffle: Shuffle | None) -> bool:
    """Whether an epoch's order is computed by ranges: with many shards, of which each canonical
    node has several ranges, unless samples move as far as they like.
    """
    mixes = shuffle is not None and shuffle.algo not in _WITHIN_BLOCKS | _WITHIN_STRETCHES
    return shards > MANY and shards >= canonical_nodes * _RANGES * SHARDS and not mixes


class RangedSamples:
    """An epoch's sequence of samples; see ``Samples``.

    Args:
        reads: What is read of each stream.
        canonical_nodes: Number of even stretches that it is cut into.
        shuffle: The settings of the shuffle, or None for no shuffle.

    Attributes:
        total: Samples of the sequence.
    """

    def __init__(
        self, reads: Sequence[Reads], canonical_nodes: int, shuffle: Shuffle | None
    ) -> None:
        self._shuffle = shuffle
        self._streams = [Ranges.of(stream, shuffle is not None) for stream in reads]
        take = np.concatenate([ranges.take for ranges in self._streams])
        self._ends = np.cumsum([len(ranges) for ranges in self._streams])
        self.total = int(take.sum())
        borders = np.arange(canonical_nodes + 1) * self.total // canonical_nodes
        # Parts of ranges: each range, cut where a canonical node begins
        self._range, self._skip, length, self._part = stretches(take, borders, shuffle)
        self._starts = np.concatenate([[0], np.cumsum(length)])
        self._blocks: HalfBlocks | None = None
        if shuffle is not None and shuffle.algo in _WITHIN_BLOCKS:
            self._blocks = HalfBlocks(borders=borders, shuffle=shuffle)
        self._most = max(64, 4 * canonical_nodes)  # tables that are kept
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        self._merged: tuple[NDArray[np.int64], _Table] | None = None

    def ids(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample ids at positions in ``[0, total)``, int64 of the same shape."""
        flat = positions.reshape(-1)
        found = np.empty(len(flat), np.int64)
        if not len(flat):
            return found.reshape(positions.shape)
        chunks = [slice(begin, begin + _CHUNK) for begin in range(0, len(flat), _CHUNK)]
        read = np.zeros(len(self._range), bool)
        for chunk in chunks:
            found[chunk] = self._moved(flat[chunk])
            read[np.searchsorted(self._starts, found[chunk], side="right") - 1] = True
        table = self._table(np.flatnonzero(read))
        for chunk in chunks:
            found[chunk] = self._look_up(found[chunk], table)
        return found.reshape(positions.shape)

    def _moved(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the samples at some positions were before blocks were shuffled."""
        if self._blocks is None:
            return at
        for half in (1, 0):
            begin, end, key = self._blocks.find(at, half)
            at = begin + permuted(at - begin, end - begin, key)
        return at

    def _look_up(self, at: NDArray[np.int64], table: _Table) -> NDArray[np.int64]:
        of = np.searchsorted(table.starts, at, side="right") - 1
        inside = at - table.starts[of]
        shuffle = self._shuffle
        if shuffle is not None and shuffle.algo in _WITHIN_STRETCHES:
            # By the read and where in it the stretch begins, which no other stretch has
            key = shuffle.key(_STRETCH, table.part[of], table.first[of], table.skip[of])
            inside = permuted(inside, table.length[of], key)
        inside = inside + table.skip[of]
        partial = np.flatnonzero(table.take[of] < table.samples[of])
        if len(partial):
            some = of[partial]
            inside[partial] = partial_choice(
                inside[partial], table.samples[some], table.take[some], table.key[some]
            )
        return table.first[of] + inside

    def _table(self, parts: NDArray[np.int64]) -> _Table:
        """The table of some parts, ascending."""
        if self._merged is None or not np.isin(parts, self._merged[0]).all():
            tables = [self._table_of(part) for part in parts.tolist()]
            self._merged = parts, _Table(*map(np.concatenate, zip(*tables, strict=True)))
            while len(self._tables) > self._most:
                self._tables.popitem(last=False)
        return self._merged[1]

    def _table_of(self, part: int) -> _Table:
        known = self._tables.get(part)
        if known is not None:
            self._tables.move_to_end(part)
            return known
        at = int(self._range[part])
        stream = int(np.searchsorted(self._ends, at, side="right"))
        ranges = self._streams[stream]
        units = ranges.units(at - (int(self._ends[stream]) - len(ranges)))
        first, last = self._starts[part], self._starts[part + 1]
        begin = int(self._skip[part])
        end = begin + int(last - first)
        run = np.arange(len(units.take))
        shuffle = self._shuffle
        if shuffle is not None:
            run = np.random.default_rng([shuffle.seed, at]).permutation(run)
        ends = np.cumsum(units.take[run])
        starts = ends - units.take[run]
        inside = np.flatnonzero((ends > begin) & (starts < end))
        if shuffle is not None:
            rng = np.random.default_rng([shuffle.seed, shuffle.epoch, int(self._part[part])])
            inside = rng.permutation(inside)
        skip = np.maximum(begin - starts[inside], 0)
        length = np.minimum(ends[inside], end) - starts[inside] - skip
        unit = run[inside]
        made = _Table(
            starts=first + np.cumsum(length) - length,
            length=length,
            first=units.first[unit],
            skip=skip,
            samples=units.samples[unit],
            take=units.take[unit],
            key=units.key[unit],
            part=np.full(len(unit), self._part[part]),
        )
        self._tables[part] = made
        return made
