"""How a window is chosen: decided one segment before, so that its candidates are read in time."""

from dataclasses import dataclass

# By what a window's lessons are chosen.
ALL = "all"  # everything is kept
RANDOM = "random"  # no score is needed
SCORED = "scored"  # the candidates are read and scored
REMEMBERED = "remembered"  # the ledger knows enough of the samples


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a window will be chosen.

    Args:
        by: ``ALL``, ``RANDOM``, ``SCORED`` or ``REMEMBERED``.
        lessons: Number of lesson rows.
        notes: Name of each arrangement that does something, and its note: a positive integer that
            only the arrangement understands.
        units: Pieces that each sample is cut into; 1 for whole samples.
        features: Whether an arrangement needs features of the candidates.
    """

    by: str
    lessons: int
    notes: tuple[tuple[str, int], ...] = ()
    units: int = 1
    features: bool = False

    @property
    def reads(self) -> bool:
        """Whether candidates are read."""
        return self.features or self.by == SCORED
