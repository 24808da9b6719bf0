"""A window of the stream, and what was chosen from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attent_stream.window.decision import Decision


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window's candidates.

    Args:
        epoch: Number of the epoch.
        index: Number of the window in its epoch.
        ids: Sample ids in canonical slots, int64 of shape (C, row_size).
        lanes: Lane of each slot, same shape.
        unit: Slots that must stay of one stream together.
        share: Share of the epoch's rows before the window, in [0, 1].
        until: Share of the epoch's rows up to the window's end, in [0, 1].
    """

    epoch: int
    index: int
    ids: NDArray[np.int64]
    lanes: NDArray[np.int64]
    unit: int
    share: float
    until: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A window's lessons.

    Args:
        decision: How they were chosen.
        places: Flat index of each lesson among all units of the window's candidates
            (``candidate * units + piece``), int64 of shape (L, row_size * units).
        weights: Weight of each lesson's loss, float32 of the same shape.
        scores: Scores of all candidates, float of shape (C, row_size); None if there are none.
        window: What they were chosen from.
        metrics: What the selector and the arrangements report, by name.
        measured: What ``choice_metrics`` returns for it, if that was computed with it.
    """

    decision: Decision
    places: NDArray[np.int64]
    weights: NDArray[np.float32]
    scores: NDArray[np.floating] | None
    window: Window
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured: tuple[dict[str, float], dict[str, int]] | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids of the lessons, shape (L, row_size * units)."""
        return self.window.ids.reshape(-1)[self.places // self.decision.units]

    @property
    def pieces(self) -> NDArray[np.int64]:
        """Which piece of its sample each lesson is, shape (L, row_size * units)."""
        return self.places % self.decision.units

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which candidates are kept, shape (C, row_size)."""
        kept = np.zeros(self.window.ids.size, bool)
        kept[self.places.reshape(-1) // self.decision.units] = True
        return kept.reshape(self.window.ids.shape)
