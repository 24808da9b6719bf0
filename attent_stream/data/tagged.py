"""What a loader worker passes from its data set through the collate function to the loader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.score.views import VIEWS
from attent_stream.window.decision import Decision


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a worker prepares a step's batch.

    Args:
        arrangements: The run's.
        decision: How the step's window is chosen, without what a worker does not need.
        lesson: Whether the step is a lesson step; else it is a candidate step.
        scored: Whether candidates are scored. If not, only their features are needed.
        view: Name of what candidates are scored by, in ``VIEWS``; empty for the batch itself.
    """

    arrangements: Arrangements
    decision: Decision
    lesson: bool
    scored: bool = True
    view: str = ""

    @property
    def units(self) -> int:
        """Pieces that each sample of a lesson is cut into; 1 for candidates."""
        return self.decision.units if self.lesson else 1

    def made(self, batch: Any, pieces: Sequence[int]) -> tuple[Any, NDArray[np.float16] | None]:
        """Prepare a collated batch.

        Args:
            batch: The collated batch of whole samples.
            pieces: Index of each lesson's piece within its sample.

        Returns:
            The batch, its view or None; and features of candidates, float16 of shape (B, units *
            d), or None.

        Raises:
            ScoreError: The batch cannot be arranged or viewed.
        """
        if self.lesson:
            return self.arrangements.lesson(batch, pieces, self.decision), None
        features = None
        if self.decision.features:
            features = self.arrangements.features(batch, self.decision)
        if not self.scored:
            return None, features
        return VIEWS.get(self.view)(batch) if self.view else batch, features


class Tagged(NamedTuple):
    """Samples for the collate function, with what is known of them beside them.

    Args:
        step: Number of their step.
        samples: One sample; for lessons in pieces, as many samples as pieces.
        ids: Their sample ids.
        pieces: Index of the piece that each sample is read for.
        task: How their batch is prepared.
    """

    step: int
    samples: list[Any]
    ids: Sequence[int]
    pieces: Sequence[int]
    task: Task


class Collated(NamedTuple):
    """A step's batch for the loader.

    Args:
        step: Number of the step.
        batch: The batch to train on or to score; None if only features are needed.
        features: Features of candidates, float16 of shape (B, units * d), if they are needed.
        fault: Why the batch does not have one row for each sample; empty if it has.
    """

    step: int
    batch: Any
    features: NDArray[np.float16] | None = None
    fault: str = ""
