"""One epoch's shuffled sequence of samples, computed by position; the set-up is O(shards).

As in Streaming's shuffles, shards have a random sequence that is the same in all epochs, and it is
cut evenly into the canonical nodes. In each canonical node, the stretches of shards have another
sequence in each epoch, and samples move within blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attent_stream.order.permutation import below, keyed, permuted
from attent_stream.order.stream_counts import partial_choice

# Positions computed at a time, so that intermediate arrays stay in the CPU's cache
_CHUNK = 1 << 15
_MOST_BLOCKS = 1 << 21
BLOCK, STAGGER, EDGE, TAKEN = range(4)  # purposes of keys


@dataclass(frozen=True, kw_only=True)
class Units:
    """The reads of shards in an epoch: one unit for each time that a shard is read.

    Args:
        first: Id of the shard's first sample, int64 of shape (units,).
        samples: Samples of the shard, same shape.
        take: Samples that are read, 1 to ``samples``, same shape.
        key: uint64 key that draws them if not all are read, same shape.
    """

    first: NDArray[np.int64]
    samples: NDArray[np.int64]
    take: NDArray[np.int64]
    key: NDArray[np.uint64]

    @classmethod
    def of_shards(
        cls,
        first: NDArray[np.int64],
        samples: NDArray[np.int64],
        counts: NDArray[np.int64],
        seed: int,
    ) -> "Units":
        """Make the units of each shard: whole reads as far as its count goes, then a partial one.

        Args:
            first: Id of each shard's first sample, int64 of shape (shards,).
            samples: Samples of each shard, same shape.
            counts: Samples to read of each shard, same shape.
            seed: Seed of the draw for partial reads.
        """
        size = np.maximum(samples, 1)
        units = -(-counts // size)
        shard = np.repeat(np.arange(len(first)), units)
        nth = np.arange(len(shard)) - np.repeat(np.cumsum(units) - units, units)
        take = np.minimum(size[shard], counts[shard] - nth * size[shard])
        return cls(
            first=first[shard], samples=size[shard], take=take, key=keyed(seed, TAKEN, first[shard])
        )

    @classmethod
    def joined(cls, streams: list["Units"]) -> "Units":
        """Concatenate the units of several streams."""
        return cls(
            **{
                name: np.concatenate([getattr(units, name) for units in streams])
                for name in ("first", "samples", "take", "key")
            }
        )


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """The settings of a shuffle.

    Args:
        algo: Streaming's ``shuffle_algo``, a key of ``BLOCKS``.
        seed: Seed of the run.
        epoch: The epoch's number.
        block_size: Samples over which a shard is spread (Streaming's ``shuffle_block_size``).

    Raises:
        ValueError: ``algo`` is unknown or ``block_size`` is below 1.
    """

    algo: str
    seed: int
    epoch: int
    block_size: int

    def __post_init__(self) -> None:
        if self.algo not in BLOCKS:
            raise ValueError(f"shuffle_algo must be one of {sorted(BLOCKS)}, got {self.algo!r}")
        if self.block_size < 1:
            raise ValueError(
                f"shuffle_block_size must be at least 1 for each stream, got {self.block_size}"
            )

    def key(self, purpose: int, *parts: ArrayLike) -> NDArray[np.uint64]:
        """Return keys for a purpose in this epoch."""
        return keyed(self.seed, self.epoch, purpose, *parts)


class Blocks(NamedTuple):
    """Consecutive blocks of a sequence, each shuffled by its own key."""

    edges: NDArray[np.int64]  # first position of each block and the end, shape (blocks + 1,)
    keys: NDArray[np.uint64]  # shape (blocks,)


class Stretches(NamedTuple):
    """What is read in sequence, cut where a canonical node begins; int64 arrays of shape (n,)."""

    of: NDArray[np.int64]  # which of what is read
    skip: NDArray[np.int64]  # samples of it that come before
    length: NDArray[np.int64]
    number: NDArray[np.int64]  # its number in the sequence of all epochs


def stretches(
    take: NDArray[np.int64], borders: NDArray[np.int64], shuffle: Shuffle | None
) -> Stretches:
    """An epoch's sequence of what is read: in each canonical node another one in each epoch.

    Args:
        take: Samples that are read of each, at least 1, int64 of shape (units,).
        borders: First position of each canonical node and the end.
        shuffle: The settings of the shuffle, or None for no shuffle.
    """
    run = np.arange(len(take))
    if shuffle is not None:
        run = np.random.default_rng(shuffle.seed).permutation(len(run))
    ends = np.cumsum(take[run])
    starts = ends - take[run]
    cut = np.unique(np.concatenate([starts, borders[:-1]]))
    place = np.searchsorted(starts, cut, side="right") - 1
    length = np.diff(cut, append=borders[-1])
    number = np.arange(len(cut))
    if shuffle is not None:
        node = np.searchsorted(borders, cut, side="right")
        rng = np.random.default_rng([shuffle.seed, shuffle.epoch])
        number = np.lexsort((rng.random(len(cut)), node))
    skip = cut - starts[place]
    return Stretches(run[place][number], skip[number], length[number], number)


class Samples:
    """An epoch's sequence of samples.

    Args:
        units: The reads of shards that it consists of.
        canonical_nodes: Number of even stretches that it is cut into.
        shuffle: The settings of the shuffle, or None for no shuffle.

    Attributes:
        total: Samples of the sequence.
        borders: First position of each canonical node and the end, shape (canonical_nodes + 1,).
        starts: First position of each stretch of a shard and the end.
    """

    def __init__(self, units: Units, canonical_nodes: int, shuffle: Shuffle | None) -> None:
        self.total = int(units.take.sum())
        self.borders = np.arange(canonical_nodes + 1) * self.total // canonical_nodes
        unit, skip, length, _ = stretches(units.take, self.borders, shuffle)
        self.starts = np.concatenate([[0], np.cumsum(length)])
        self._skip = skip
        self._first, self._samples = units.first[unit], units.samples[unit]
        self._take, self._key = units.take[unit], units.key[unit]
        self._blocks = BLOCKS[shuffle.algo](self, shuffle) if shuffle is not None else []

    def ids(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample ids at positions in ``[0, total)``, int64 of the same shape."""
        flat = positions.reshape(-1)
        found = np.empty(len(flat), np.int64)
        for begin in range(0, len(flat), _CHUNK):
            found[begin : begin + _CHUNK] = self._look_up(flat[begin : begin + _CHUNK])
        return found.reshape(positions.shape)

    def _look_up(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        for edges, keys in self._blocks:
            block = np.searchsorted(edges, at, side="right") - 1
            begin = edges[block]
            at = begin + permuted(at - begin, edges[block + 1] - begin, keys[block])
        stretch = np.searchsorted(self.starts, at, side="right") - 1
        inside = at - self.starts[stretch] + self._skip[stretch]
        partial = np.flatnonzero(self._take[stretch] < self._samples[stretch])
        if len(partial):
            of = stretch[partial]
            inside[partial] = partial_choice(
                inside[partial], self._samples[of], self._take[of], self._key[of]
            )
        return self._first[stretch] + inside


def _halves(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """Make two sets of blocks of half a ``block_size`` (0.94 to 1.06), staggered between nodes.

    The blocks of one set begin in the middle of the other's. Shuffled within both, a shard's
    samples are spread evenly over a ``block_size`` as in ``py1e``. Half as many shards are first
    needed at a time as with one shuffle of whole blocks.
    """
    # Bound the number of blocks: the set-up must not grow with the samples.
    size = max(1, shuffle.block_size // 2, samples.total // _MOST_BLOCKS)
    first, last = samples.borders[:-1], samples.borders[1:]
    nodes, reach = np.arange(len(first)), size // 32
    stagger = below(shuffle.key(STAGGER, nodes), max(1, size * 3 // 4))
    sets = []
    for half in (1, 0):
        ahead = stagger + half * (size // 2)
        many = (last - first + ahead) // size + 1
        node = np.repeat(nodes, many)
        number = np.arange(len(node)) - np.repeat(np.cumsum(many) - many, many) + 1
        jitter = below(shuffle.key(EDGE, half, node, number), 2 * reach + 1) - reach
        edges = first[node] - ahead[node] + number * size + jitter
        edges = edges[(edges > first[node]) & (edges < last[node])]
        sets.append(_blocks(shuffle, np.unique(np.concatenate([edges, samples.borders])), half))
    return sets


def _stretches(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """Make a block of each stretch of a shard."""
    return [_blocks(shuffle, samples.starts, 0)]


def _everything(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """Make one block of all samples."""
    return [_blocks(shuffle, np.array([0, samples.total]), 0)]


def _blocks(shuffle: Shuffle, edges: NDArray[np.int64], number: int) -> Blocks:
    return Blocks(edges, shuffle.key(BLOCK, number, np.arange(len(edges) - 1)))


# Streaming's shuffle_algo -> the sets of blocks, applied in sequence, that move samples as far
BLOCKS: dict[str, Callable[[Samples, Shuffle], list[Blocks]]] = {
    "py1e": _halves,
    "py1br": _halves,
    "py1s": _stretches,
    "py2s": _stretches,
    "naive": _everything,
}
