"""Ranges of a stream's shards, for orders that are set up without a look at each shard.

A range is some hundred shards. If samples are shuffled, it has every ``ranges``-th shard, so that
each range is a sample of the whole stream; else it has shards that follow each other.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.lazy_samples import Units
from attent_stream.order.stream_counts import shares

SHARDS = 256  # of a range: its tables take 12 kB, and it mixes as many as an order reads at a time


class Reads(Protocol):
    """What is read of a stream; see ``StreamReads``."""

    @property
    def first(self) -> NDArray[np.int64]:
        """Id of each shard's first sample."""

    @property
    def samples(self) -> NDArray[np.int64]:
        """Samples of each shard."""

    @property
    def choose(self) -> int:
        """Samples to read of the whole stream."""

    @property
    def count_seed(self) -> int:
        """Seeds how many samples are read of each shard."""

    @property
    def seed(self) -> int:
        """Seeds which ones."""


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The ranges of a stream that an epoch reads, each time that it reads one.

    Where samples are shuffled, a stream that is read several times has each range several times;
    else a range has all reads of its shards. A stream that is read in part has a part of each
    range, as in ``shard_counts`` for many shards.

    Args:
        reads: What is read of the stream.
        shuffled: Whether samples are shuffled.
        count: Number of ranges of the stream.
        nth: Which reading of its range each is, int64 of shape (n,).
        number: Which range each is, same shape.
        take: Samples of it that are read, at least 1, same shape.
    """

    reads: Reads
    shuffled: bool
    count: int
    nth: NDArray[np.int64]
    number: NDArray[np.int64]
    take: NDArray[np.int64]

    @classmethod
    def of(cls, reads: Reads, shuffled: bool) -> "Ranges":
        """Make the ranges of a stream. Its shards are added up once, and nothing is kept of each.

        Args:
            reads: What is read of the stream.
            shuffled: Whether samples are shuffled.
        """
        count = -(-len(reads.samples) // SHARDS)
        sizes = _sizes(reads.samples, count, shuffled)
        repeats, rest = divmod(reads.choose, int(sizes.sum()))
        rng = np.random.default_rng([reads.count_seed, 0])
        part = shares(sizes, rest, rng) if rest else np.zeros_like(sizes)
        takes = np.stack([sizes] * repeats + [part]) if shuffled else sizes[None] * repeats + part
        nth, number = np.nonzero(takes)
        return cls(
            reads=reads,
            shuffled=shuffled,
            count=count,
            nth=nth,
            number=number,
            take=takes[nth, number],
        )

    def __len__(self) -> int:
        return len(self.take)

    def units(self, at: int) -> Units:
        """The reads of the shards of a range."""
        reads, number, take = self.reads, int(self.number[at]), int(self.take[at])
        begin = number if self.shuffled else number * SHARDS
        shards = slice(begin, None, self.count) if self.shuffled else slice(begin, begin + SHARDS)
        samples = reads.samples[shards]
        repeats, rest = divmod(take, int(samples.sum()))
        rng = np.random.default_rng([reads.count_seed, 1, number])
        counts = samples * repeats + (shares(samples, rest, rng) if rest else 0)
        # Each whole reading has a key of its own, as it is shuffled by itself
        seed = reads.seed + int(self.nth[at])
        return Units.of_shards(reads.first[shards], samples, counts, seed)


def _sizes(samples: NDArray[np.int64], count: int, shuffled: bool) -> NDArray[np.int64]:
    """Samples of each range."""
    if not shuffled:
        return np.add.reduceat(samples, np.arange(0, len(samples), SHARDS))
    rows = len(samples) // count
    sizes = samples[: rows * count].reshape(rows, count).sum(axis=0)
    rest = samples[rows * count :]
    sizes[: len(rest)] += rest
    return sizes
