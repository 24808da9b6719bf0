"""The window that is chosen next, and what is known of its candidates until then."""

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import Pick, RankGroup
from attent_stream.window.choice import Window
from attent_stream.window.decision import SCORED, Decision
from attent_stream.window.layout import Layout, canonical_values, reading_order


class Upcoming:
    """A window whose candidates are read.

    Args:
        window: The window.
        decision: How it will be chosen.
        layout: The current layout of ranks.
        origin: The layout in which its rows were made.

    Attributes:
        scores: Scores of its candidates, shape (C, row_size): float64, NaN where not known yet, or
            float32 as they were remembered when the choice began. None if none are needed so far.
        features: Features of the candidates in some of its slots, float16 of shape (C, m, d); None
            before the first.
    """

    def __init__(
        self, window: Window, decision: Decision, *, layout: Layout, origin: Layout
    ) -> None:
        self.window, self.decision = window, decision
        self._layout, self._origin = layout, origin
        self.scores: NDArray[np.floating] | None = None
        self.features: NDArray[np.float16] | None = None
        if decision.by == SCORED:
            self.scores = np.full(window.ids.shape, np.nan)

    def resume_scores(self, scores: NDArray[np.float32], planned: Decision | None) -> None:
        """Go on with a checkpoint's scores, if the window is chosen as it was planned then.

        Raises:
            ValueError: They are not of this window's shape.
        """
        if planned is None or planned.by != self.decision.by:
            return
        if scores.shape != self.window.ids.shape:
            raise ValueError(
                "the checkpoint's teaching position is damaged: expected scores of shape "
                f"{self.window.ids.shape}, got {scores.shape}"
            )
        self.scores = scores.astype(np.float64) if self.decision.by == SCORED else scores

    def record(self, rows: list[int], scores: NDArray) -> NDArray[np.float64]:
        """Record scores of candidate rows.

        Args:
            rows: Indices of the rows within the window, length n.
            scores: Scores of all ranks' samples, float of shape (ranks, n, batch_size).

        Returns:
            The scores in canonical slot order, shape (n, row_size).

        Raises:
            TeacherError: No scores are needed.
        """
        if self.scores is None:
            window = self.window
            raise TeacherError(f"window {window.index} of epoch {window.epoch} needs no scores")
        canonical = canonical_values(scores.astype(np.float64), self._origin)
        self.scores[rows] = canonical
        return canonical

    def feature_places(self, arrangements: Arrangements, group: RankGroup) -> Pick:
        """Return which candidates of a row a rank needs the features of.

        Args:
            arrangements: The run's.
            group: The rank, and those that will choose the window with it.

        Returns:
            Rank and sample of each, as they are read, in canonical slot order; each int64 of shape
            (m,).
        """
        read = reading_order(self._origin)
        slots = arrangements.slots(self.window, self.decision, group)
        rank, sample = np.divmod(read if slots is None else read[slots], self._layout.batch_size)
        return rank, sample

    def record_features(self, rows: list[int], features: NDArray[np.float16]) -> None:
        """Record features of candidate rows.

        Args:
            rows: See ``record``.
            features: Features of the candidates in ``feature_places``, shape (n, m, d).
        """
        if self.features is None:
            shape = (len(self.window.ids), *features.shape[1:])
            self.features = np.zeros(shape, np.float16)  # memory is only taken as rows come
        self.features[rows] = features
