"""What travels from a loader worker's data set through the collate function to the loader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.window.decision import Decision


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker makes of a step's batch.

    Args:
        arrangements: The run's.
        decision: How the step's window is chosen, as far as a worker needs it.
        lesson: Whether the step is a lesson; else it is a candidate step.
        scored: Whether candidates are scored, so that their batch is needed.
    """

    arrangements: Arrangements
    decision: Decision
    lesson: bool
    scored: bool = True

    @property
    def units(self) -> int:
        """Pieces that each sample of a lesson is cut into; 1 for candidates."""
        return self.decision.units if self.lesson else 1

    def made(self, batch: Any, pieces: Sequence[int]) -> tuple[Any, NDArray[np.float16] | None]:
        """What is handed on of a collated batch.

        Args:
            batch: As collated, of whole samples.
            pieces: Which piece of its sample each lesson is.

        Returns:
            The batch or None, and features of candidates, float16 of shape (B, units * d), or None.
        """
        if self.lesson:
            return self.arrangements.lesson(batch, pieces, self.decision), None
        if not self.decision.features:
            return batch, None
        features = self.arrangements.features(batch, self.decision)
        return batch if self.scored else None, features


class Tagged(NamedTuple):
    """Samples on their way into the collate function, so that nothing of ours is inside them.

    Args:
        step: Number of their step.
        samples: One sample, or of a lesson in pieces as many as there are pieces.
        ids: Their sample ids.
        pieces: Which piece of its sample each is there for.
        task: What is made of their batch.
    """

    step: int
    samples: list[Any]
    ids: Sequence[int]
    pieces: Sequence[int]
    task: Task


class Collated(NamedTuple):
    """A step's batch on its way to the loader.

    Args:
        step: Number of the step.
        batch: As it is handed out or scored; None where only features are needed.
        features: Features of candidates, float16 of shape (B, units * d), if they are needed.
        fault: Why the batch's rows are not its samples; empty if they are.
    """

    step: int
    batch: Any
    features: NDArray[np.float16] | None = None
    fault: str = ""
