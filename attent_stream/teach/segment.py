"""A segment: the steps that carry one window's lessons and the next window's candidates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.teach.position import Chosen
from attent_stream.window.choice import Choice
from attent_stream.window.decision import ALL, Decision
from attent_stream.window.layout import CANDIDATE, LESSON


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one rank does between two choices.

    Args:
        index: Number of the segment in its epoch.
        lessons: Sample ids of its lesson steps, int64 of shape (L, batch_size * units), filled up
            with -1 where short.
        pieces: Which piece of its sample each lesson is, int64 of the same shape.
        weights: Weight of each lesson, float32 of the same shape.
        candidates: Sample ids of its candidate steps, int64 of shape (C, batch_size). They are of
            the next window.
        roles: Role of each step, int8 of shape (L + C,).
        due: Index of the lesson at which the next window is chosen.
        choice: What the lessons were chosen from; None for what follows the last full row.
    """

    index: int
    lessons: NDArray[np.int64]
    pieces: NDArray[np.int64]
    weights: NDArray[np.float32]
    candidates: NDArray[np.int64]
    roles: NDArray[np.int8]
    due: int
    choice: Choice | None

    @property
    def decision(self) -> Decision:
        """How its lessons were chosen."""
        if self.choice is None:
            return Decision(by=ALL, lessons=len(self.lessons))
        return self.choice.decision

    @property
    def units(self) -> int:
        """Pieces that each sample of its lessons is cut into."""
        return self.decision.units

    @property
    def ids(self) -> NDArray[np.int64]:
        """What each step reads, as ``Posting.ids`` has it."""
        ids = np.full((len(self.roles), self.lessons.shape[1]), -1, np.int64)
        whole = np.where(self.lessons < 0, -1, self.lessons * self.units + self.pieces)
        ids[self.roles == LESSON] = whole
        ids[self.roles == CANDIDATE, : self.candidates.shape[1]] = self.candidates
        return ids

    @property
    def chosen(self) -> Chosen | None:
        """What a checkpoint keeps of its choice."""
        choice = self.choice
        if choice is None:
            return None
        return Chosen(
            decision=choice.decision,
            kept=choice.kept,
            weights=None if (choice.weights == 1).all() else choice.weights.astype(np.float16),
            places=choice.places.astype(np.int32) if choice.decision.features else None,
        )
