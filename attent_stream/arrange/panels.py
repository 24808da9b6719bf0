"""Panels: parts of a window that are balanced each by itself, so that ranks can share a large one.

A panel has the same slots in every row. It depends on the window alone, not on the ranks, so a run
that resumes on other ranks has the same panels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.gather import RankGroup


@dataclass(frozen=True, kw_only=True)
class Panels:
    """The panels of a window.

    Args:
        of_slot: Panel of each slot of a row, from 0, int64 of shape (row_size,).
        count: Number of panels.
    """

    of_slot: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, lanes: NDArray[np.integer], units: int, most: int) -> "Panels":
        """Divide a window into as few panels as can be.

        Args:
            lanes: Lane of each slot, shape (C, row_size). Slots of a lane are kept together.
            units: Pieces of a sample.
            most: Units of a panel at most; one slot of all rows may have more.
        """
        rows, size = lanes.shape
        slots = max(1, most // (rows * units))
        count = -(-size // slots)
        of_slot = np.zeros(size, np.int64)
        if count == 1:  # nearly always: nothing to sort
            return cls(of_slot=of_slot, count=count)
        for number, some in enumerate(np.array_split(np.argsort(lanes[0], kind="stable"), count)):
            of_slot[some] = number
        return cls(of_slot=of_slot, count=count)

    def slots(self, group: RankGroup) -> NDArray[np.int64]:
        """Slots of the panels of a rank, ascending."""
        if group.ranks >= self.count:
            return np.flatnonzero(self.of_slot == group.rank % self.count)
        return np.flatnonzero(self.of_slot % group.ranks == group.rank)

    def share(self, group: RankGroup) -> tuple[int, int]:
        """A rank's number among those that have the same panels, and the number of these."""
        if group.ranks <= self.count:
            return 0, 1
        first = group.rank % self.count
        return group.rank // self.count, len(range(first, group.ranks, self.count))
