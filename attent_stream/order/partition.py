"""Streaming's partition of a sequence of samples over nodes and ranks, computed by position.

The result is the same as in ``streaming/base/partition/orig.py``: canonical nodes are read
round-robin, and samples are repeated at the end so that all nodes and ranks have equally many.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition of a sequence of samples.

    Args:
        samples: Length of the sequence, 1 or more.
        canonical_nodes: Streaming's ``num_canonical_nodes``.
        nodes: Number of nodes; it divides ``canonical_nodes`` or the reverse.
        ranks_per_node: Ranks of each node.

    Raises:
        ValueError: Neither number of nodes divides the other.
    """

    samples: int
    canonical_nodes: int
    nodes: int
    ranks_per_node: int

    def __post_init__(self) -> None:
        if self.canonical_nodes % self.nodes and self.nodes % self.canonical_nodes:
            raise ValueError(
                "expected num_canonical_nodes to divide the number of nodes or the reverse, got "
                f"{self.canonical_nodes} and {self.nodes}"
            )

    @property
    def per_node(self) -> int:
        """Samples that each node reads, shared evenly by its ranks."""
        return -(-self._unpadded // self.ranks_per_node) * self.ranks_per_node

    def positions(self, node: NDArray[np.int64], nth: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the position in the sequence of the ``nth`` sample that ``node`` reads.

        Args:
            node: int64, each in ``[0, nodes)``.
            nth: int64 of the same shape, each in ``[0, per_node)``; the node's rank
                ``nth % ranks_per_node`` reads it.

        Returns:
            int64 of the same shape.
        """
        whole, ranks = self._unpadded, self.ranks_per_node
        missing = self.per_node - whole
        if missing:
            fits = ranks + missing - 1 <= whole
            again = nth - ranks - missing + 1 if fits else (nth - whole) % whole
            nth = np.where(nth >= whole, again, nth)
        flat = nth * self.nodes + node
        canonical, column = flat % self.canonical_nodes, flat // self.canonical_nodes
        if self._repeats:
            return (canonical * self._columns + column) % self.samples
        padding = self._columns - self._longest
        if padding:
            shift = self.nodes // self.canonical_nodes - 1 + padding
            column = np.where(column >= self._longest, np.maximum(column - shift, 0), column)
        begin = canonical * self.samples // self.canonical_nodes
        length = (canonical + 1) * self.samples // self.canonical_nodes - begin
        return begin + np.minimum(column, length - 1)

    @property
    def _longest(self) -> int:
        """Most samples of a canonical node."""
        return -(-self.samples // self.canonical_nodes)

    @property
    def _columns(self) -> int:
        """``_longest``, padded so that nodes that share a canonical node have equally many."""
        sharing = max(1, self.nodes // self.canonical_nodes)
        return -(-self._longest // sharing) * sharing

    @property
    def _repeats(self) -> bool:
        """Whether the samples are too few to partition, so that they are repeated cyclically."""
        if self.samples == self.canonical_nodes:
            return self.canonical_nodes < self.nodes
        return self.samples < self.canonical_nodes

    @property
    def _unpadded(self) -> int:
        return self.canonical_nodes * self._columns // self.nodes
