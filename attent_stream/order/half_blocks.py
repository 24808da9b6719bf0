"""Blocks of half a ``block_size``, found by arithmetic."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.lazy_samples import BLOCK, EDGE, STAGGER, Shuffle
from attent_stream.order.permutation import below


@dataclass(frozen=True, kw_only=True)
class HalfBlocks:
    """Two sets of blocks as in ``lazy_samples.py``, without an array of them.

    Args:
        borders: First position of each canonical node and the end, strictly ascending.
        shuffle: The settings of the shuffle.
    """

    borders: NDArray[np.int64]
    shuffle: Shuffle

    @property
    def size(self) -> int:
        """Samples of a block, about."""
        return max(1, self.shuffle.block_size // 2)

    def find(
        self, at: NDArray[np.int64], half: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        """The block of each position.

        Args:
            at: Positions, int64 of shape (n,).
            half: Which set, 0 or 1.

        Returns:
            First position and end of its block, and its key, each of shape (n,).
        """
        size = self.size
        node = np.searchsorted(self.borders, at, side="right") - 1
        first, last = self.borders[node], self.borders[node + 1]
        stagger = below(self.shuffle.key(STAGGER, node), max(1, size * 3 // 4))
        origin = first - stagger - half * (size // 2)
        number = (at - origin) // size
        # An edge is moved by less than half of a block, so one of two neighbours is the last one
        # at or before a position.
        number = number + (self._edge(node, origin, number + 1, half) <= at)
        number = np.maximum(number - (self._edge(node, origin, number, half) > at), 0)
        begin = np.maximum(first, self._edge(node, origin, number, half))
        begin = np.where(number == 0, first, begin)
        end = np.minimum(last, self._edge(node, origin, number + 1, half))
        return begin, end, self.shuffle.key(BLOCK, half, node, number)

    def _edge(
        self, node: NDArray, origin: NDArray, number: NDArray, half: int
    ) -> NDArray[np.int64]:
        reach = self.size // 32
        key = self.shuffle.key(EDGE, half, node, number)
        return origin + number * self.size + below(key, 2 * reach + 1) - reach
