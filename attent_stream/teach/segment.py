"""A segment: the steps that carry one window's lessons and the next window's candidates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.teach.position import Chosen
from attent_stream.window.choice import Choice
from attent_stream.window.layout import CANDIDATE, LESSON


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one rank does between two choices.

    Args:
        index: Which segment of the epoch.
        lessons: Sample ids of its lesson steps, int64 of shape (L, batch_size * pieces), filled up
            with -1 where short.
        parts: Which piece of its sample each is, int64, same shape.
        pieces: Into how many each sample is cut.
        weights: Of each, float32, same shape.
        candidates: Sample ids of its candidate steps, int64 of shape (C, batch_size); they are of
            the next window.
        roles: Role of each step, int8 of shape (L + C,).
        due: Index of the lesson at which the next window is chosen.
        choice: What the lessons were chosen from, or None for what follows the last full row.
    """

    index: int
    lessons: NDArray[np.int64]
    parts: NDArray[np.int64]
    pieces: int
    weights: NDArray[np.float32]
    candidates: NDArray[np.int64]
    roles: NDArray[np.int8]
    due: int
    choice: Choice | None

    @property
    def steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and pieces of its steps, as ``Posting`` has them."""
        lessons, candidates = self.roles == LESSON, self.roles == CANDIDATE
        ids = np.full((len(self.roles), self.lessons.shape[1]), -1, np.int64)
        ids[lessons] = np.where(self.lessons < 0, -1, self.lessons * self.pieces + self.parts)
        ids[candidates, : self.candidates.shape[1]] = self.candidates
        return ids, np.where(lessons, self.pieces, 1)

    @property
    def chosen(self) -> Chosen | None:
        """What a checkpoint keeps of its choice."""
        choice = self.choice
        if choice is None:
            return None
        decision = choice.decision
        return Chosen(
            by=decision.by,
            lessons=decision.lessons,
            kept=choice.kept,
            weights=None if (choice.weights == 1).all() else choice.weights.astype(np.float16),
            positions=choice.positions.astype(np.int32) if decision.balanced else None,
            balanced=decision.balanced,
            pieces=decision.pieces,
        )
