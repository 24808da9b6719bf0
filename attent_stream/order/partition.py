"""Streaming's cut of a sequence of samples over canonical nodes, nodes and ranks, place by place
instead of as one array.

What stands at a place of the cut is the same as in ``streaming/base/partition/orig.py``: canonical
nodes take turns, samples are repeated at the end so that all nodes and ranks have as many.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Partition:
    """How ``samples`` places are cut.

    Args:
        samples: Places of the sequence, 1 or more.
        canonical_nodes: Streaming's ``num_canonical_nodes``.
        nodes: Nodes that read; they divide the canonical ones, or these them.
        ranks_per_node: Ranks of each.

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
                "expected num_canonical_nodes to divide the number of nodes or the other way "
                "round, got "
                f"{self.canonical_nodes} and {self.nodes}"
            )

    @property
    def per_node(self) -> int:
        """Samples that each node reads, the same number by each of its ranks."""
        return -(-self._unpadded // self.ranks_per_node) * self.ranks_per_node

    def places(self, node: NDArray[np.int64], turn: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place in the sequence of the ``turn``-th sample that ``node`` reads, int64 of their
        shape.

        Args:
            node: Each in ``[0, nodes)``.
            turn: Each in ``[0, per_node)``; of the node's ranks, ``turn % ranks_per_node`` reads
                it.
        """
        whole, ranks = self._unpadded, self.ranks_per_node
        missing = self.per_node - whole
        if missing:
            again = (
                turn - ranks - missing + 1
                if ranks + missing - 1 <= whole
                else (turn - whole) % whole
            )
            turn = np.where(turn >= whole, again, turn)
        flat = turn * self.nodes + node
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
        """Samples of a canonical node, at most."""
        return -(-self.samples // self.canonical_nodes)

    @property
    def _columns(self) -> int:
        """The same, filled up so that the nodes that share a canonical one have as many."""
        sharing = max(1, self.nodes // self.canonical_nodes)
        return -(-self._longest // sharing) * sharing

    @property
    def _repeats(self) -> bool:
        """Whether there are too few samples to cut: they are gone through again and again."""
        enough = self.samples > self.canonical_nodes
        return not (
            enough or (self.samples == self.canonical_nodes and self.canonical_nodes >= self.nodes)
        )

    @property
    def _unpadded(self) -> int:
        return self.canonical_nodes * self._columns // self.nodes
