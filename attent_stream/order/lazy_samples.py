"""One epoch's shuffled sequence of samples, looked up place by place: set-up is O(shards), a place
is arithmetic.

As in Streaming's shuffles, shards are put in a random sequence that is the same in all epochs,
which is cut evenly over the canonical nodes; within each of these the parts are in another sequence
each epoch, and samples move within blocks of parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.permutation import below, keyed, permuted
from attent_stream.order.stream_counts import partial_choice

# Places looked up at a time, so that what is computed between stays in the processor's cache
_CHUNK = 1 << 15
_MOST_BLOCKS = 1 << 21
_BLOCK, _STAGGER, _EDGE, _TAKEN = range(4)  # what a key is for


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is read of the shards in an epoch: one unit for each time that a shard is read, whole or
    in part.

    Args:
        first: Sample id of the shard's first sample, int64 of shape (units,).
        samples: Samples of the shard, same shape.
        take: Samples read of it, 1 to ``samples``, same shape.
        key: uint64, which of them where not all are, same shape.
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
        """The units of shards of which ``counts`` samples are read: as many whole ones as go into
        it, then a part.

        Args:
            first: See above, int64 of shape (shards,).
            samples: See above, same shape.
            counts: Samples to be read of each, same shape.
            seed: Of the parts' choice.
        """
        size = np.maximum(samples, 1)
        units = -(-counts // size)
        shard = np.repeat(np.arange(len(first)), units)
        nth = np.arange(len(shard)) - np.repeat(np.cumsum(units) - units, units)
        take = np.minimum(size[shard], counts[shard] - nth * size[shard])
        return cls(
            first=first[shard],
            samples=size[shard],
            take=take,
            key=keyed(seed, _TAKEN, first[shard]),
        )

    @classmethod
    def joined(cls, parts: list["Units"]) -> "Units":
        """The units of several streams, one after the other."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("first", "samples", "take", "key")
            }
        )


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """How a sequence is shuffled.

    Args:
        algo: A key of ``BLOCKS``: Streaming's names.
        seed: Of the whole run.
        epoch: Which epoch.
        block_size: Over how many samples of the order a shard is spread; Streaming's
            ``shuffle_block_size``.

    Raises:
        ValueError: An unknown ``algo``, or a ``block_size`` under 1.
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
                "shuffle_block_size must be at least 1 sample of each stream, got "
                f"{self.block_size}"
            )

    def key(self, purpose: int, *parts) -> NDArray[np.uint64]:
        """A key of this epoch's."""
        return keyed(self.seed, self.epoch, purpose, *parts)


class Blocks(NamedTuple):
    """Blocks of a sequence: where each begins and the last ends, int64 of shape (blocks + 1,), and
    the uint64 key of each.
    """

    edges: NDArray[np.int64]
    keys: NDArray[np.uint64]


class Samples:
    """The sequence.

    Args:
        units: What it is made of.
        canonical_nodes: Into how many even parts it is cut.
        shuffle: How it is shuffled, None for not at all.
    """

    def __init__(self, units: Units, canonical_nodes: int, shuffle: Shuffle | None) -> None:
        self.total = int(units.take.sum())
        self.borders = np.arange(canonical_nodes + 1) * self.total // canonical_nodes
        run = (
            np.arange(len(units.take))
            if shuffle is None
            else np.random.default_rng(shuffle.seed).permutation(len(units.take))
        )
        ends = np.cumsum(units.take[run])
        starts = ends - units.take[run]
        cut = np.unique(np.concatenate([starts, self.borders[:-1]]))
        unit = np.searchsorted(starts, cut, side="right") - 1
        skip = cut - starts[unit]
        length = np.diff(cut, append=self.total)
        unit = run[unit]
        if shuffle is not None:
            node = np.searchsorted(self.borders, cut, side="right")
            order = np.lexsort(
                (np.random.default_rng([shuffle.seed, shuffle.epoch]).random(len(cut)), node)
            )
            unit, skip, length = unit[order], skip[order], length[order]
        #: First place of each part of a shard, in sequence, and the end.
        self.starts = np.concatenate([[0], np.cumsum(length)])
        self._skip = skip
        self._first, self._samples, self._take, self._key = (
            part[unit] for part in (units.first, units.samples, units.take, units.key)
        )

        self._blocks = BLOCKS[shuffle.algo](self, shuffle) if shuffle is not None else []

    def ids(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample ids at places of the sequence, each in ``[0, total)``; int64 of the same shape."""
        flat = places.reshape(-1)
        found = np.empty(len(flat), np.int64)
        for begin in range(0, len(flat), _CHUNK):
            found[begin : begin + _CHUNK] = self._look_up(flat[begin : begin + _CHUNK])
        return found.reshape(places.shape)

    def _look_up(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        for edges, keys in self._blocks:
            block = np.searchsorted(edges, places, side="right") - 1
            begin = edges[block]
            places = begin + permuted(places - begin, edges[block + 1] - begin, keys[block])
        part = np.searchsorted(self.starts, places, side="right") - 1
        inside = places - self.starts[part] + self._skip[part]
        partial = np.flatnonzero(self._take[part] < self._samples[part])
        if len(partial):
            of = part[partial]
            inside[partial] = partial_choice(
                inside[partial], self._samples[of], self._take[of], self._key[of]
            )
        return self._first[part] + inside


def _halves(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """Blocks of about half a ``block_size`` (0.94 to 1.06) within a canonical node, which do not
    begin together on all nodes.

    There are two sets, one beginning half-way in the other's. Shuffled within both, a shard's
    samples are spread evenly over a ``block_size``, as in ``py1e``, and half as many shards are
    first needed at a time as if they were shuffled once in whole blocks.
    """
    # Blocks too small to be of use would make the set-up grow with the samples.
    size = max(1, shuffle.block_size // 2, samples.total // _MOST_BLOCKS)
    first, last = samples.borders[:-1], samples.borders[1:]
    nodes, reach = np.arange(len(first)), size // 32
    stagger = below(shuffle.key(_STAGGER, nodes), max(1, size * 3 // 4))
    sets = []
    for turn in (1, 0):
        ahead = stagger + turn * (size // 2)
        many = (last - first + ahead) // size + 1
        node = np.repeat(nodes, many)
        number = np.arange(len(node)) - np.repeat(np.cumsum(many) - many, many) + 1
        jitter = below(shuffle.key(_EDGE, turn, node, number), 2 * reach + 1) - reach
        edges = first[node] - ahead[node] + number * size + jitter
        edges = edges[(edges > first[node]) & (edges < last[node])]
        sets.append(_blocks(shuffle, np.unique(np.concatenate([edges, samples.borders])), turn))
    return sets


def _parts(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """Each part of a shard by itself."""
    return [_blocks(shuffle, samples.starts, 0)]


def _everything(samples: Samples, shuffle: Shuffle) -> list[Blocks]:
    """All samples together, over all canonical nodes."""
    return [_blocks(shuffle, np.array([0, samples.total]), 0)]


def _blocks(shuffle: Shuffle, edges: NDArray[np.int64], turn: int) -> Blocks:
    return Blocks(edges, shuffle.key(_BLOCK, turn, np.arange(len(edges) - 1)))


# By the name of Streaming's shuffle that moves samples as far: within which blocks they are
# shuffled, one set after the other.
BLOCKS: dict[str, Callable[[Samples, Shuffle], list[Blocks]]] = {
    "py1e": _halves,
    "py1br": _halves,
    "py1s": _parts,
    "py2s": _parts,
    "naive": _everything,
}
