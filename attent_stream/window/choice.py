"""A window and what is chosen from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# How a window is chosen.
# Everything is kept: before the warm-up is over, in the anneal, at keep 1, and the first window of
# an epoch
ALL = "all"
RANDOM = "random"  # no score is asked for
SCORED = "scored"  # its candidates are read and forwarded
REMEMBERED = "remembered"  # the ledger knows enough of its samples


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window as the teacher sees it.

    Args:
        epoch: Which epoch.
        index: Which window of it.
        ids: Sample ids of its rows, canonical slots, int64 of shape (C, row_size).
        lanes: Their lanes, same shape.
        unit: Slots that must stay of one stream together.
        share: Share of the epoch's rows that lie before it, in [0, 1].
        until: Likewise with its own.
    """

    epoch: int
    index: int
    ids: NDArray[np.int64]
    lanes: NDArray[np.int64]
    unit: int
    share: float
    until: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a window will be chosen: made one segment ahead, so that its candidates can be read in
    time.

    Args:
        by: One of the above.
        lessons: How many lesson rows.
        balanced: Whether the lessons are ordered by their features, for which candidates are read.
        pieces: Into how many pieces each sample is cut, of which the lessons are made.
    """

    by: str
    lessons: int
    balanced: bool = False
    pieces: int = 1

    @property
    def reads(self) -> bool:
        """Whether candidates are read."""
        return self.balanced or self.by == SCORED


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A window's selection.

    Args:
        decision: How it was chosen.
        positions: Which pieces of candidates (whole ones where ``decision.pieces`` is 1), as flat
            positions among all of the window's, int64 of shape (L, row_size * pieces).
        weights: Of the loss of each, float32 of the same shape.
        scores: Of all candidates, float of shape (C, row_size), or None where none was asked for.
        window: What was chosen from.
        gain: Predicted by ``auto``, in plain steps a step; None where it did not look.
        imbalance: Of its batches (``balance.imbalance``); None where they are not balanced, and on
            other ranks than the first.
    """

    decision: Decision
    positions: NDArray[np.int64]
    weights: NDArray[np.float32]
    scores: NDArray | None
    window: Window
    gain: float | None = None
    imbalance: float | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids of the lessons, shape (L, row_size * pieces)."""
        return self.window.ids.reshape(-1)[self.positions // self.decision.pieces]

    @property
    def parts(self) -> NDArray[np.int64]:
        """Which piece of its sample each is, shape (L, row_size * pieces)."""
        return self.positions % self.decision.pieces

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which candidates are kept, shape (C, row_size)."""
        kept = np.zeros(self.window.ids.size, bool)
        kept[self.positions.reshape(-1) // self.decision.pieces] = True
        return kept.reshape(self.window.ids.shape)
