"""``select: predicted``: windows are chosen by the design that is predicted to pay most, and kept
whole while none pays.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.experimental.inclusion import PRUNE
from attent_stream.experimental.payoff import Payoff, best_design
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import ALL, REMEMBERED, SCORED, Decision
from attent_stream.window.layout import lesson_count
from attent_stream.window.selection import below_ceiling

_SAMPLE = 24  # scores from which the spread of a window's is estimated


class PredictedTeacher(Teacher):
    """Chooses windows where that is predicted to pay; see ``Teacher`` and ``Payoff``."""

    predictable = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.payoff = Payoff(cost=1.0)

    def scoring_costs(self, cost: float) -> None:
        """See ``Teacher``."""
        self.payoff.cost = cost

    def state_dict(self) -> dict[str, Any]:
        """See ``Teacher``."""
        return {"gain": self.payoff.gain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Teacher``."""
        self.payoff.gain = state.get("gain")

    def by_remembered(self, window: Window, lessons: int) -> Decision:
        """See ``Teacher``."""
        scores = below_ceiling(self.recalled(window), window.lanes, self.settings.ceiling)
        design = best_design(scores, lessons * window.ids.shape[1], self.settings.temperature)
        rows = len(window.ids)
        if self.payoff.pays(design.gain, lessons / rows, scored=False):
            return Decision(by=REMEMBERED, lessons=lessons)
        return Decision(by=ALL, lessons=rows)

    def by_scores(self, window: Window, lessons: int) -> Decision:
        """See ``Teacher``."""
        rows = len(window.ids)
        if self.payoff.scores(lessons / rows):
            return Decision(by=SCORED, lessons=lessons)
        # Scored and kept whole, to see what it would gain; or not even scored.
        probes = self.payoff.probes(window.index, window.share)
        return Decision(by=SCORED if probes else ALL, lessons=rows)

    def selected(self, window: Window, decision: Decision, scores: NDArray | None) -> Choice:
        """See ``Teacher``; with the predicted gain as a metric."""
        if scores is None:
            choice = self._select(window, decision, None, self.settings.select)
            return replace(choice, metrics=self._seen_again(window, decision))
        below = below_ceiling(scores, window.lanes, self.settings.ceiling)
        lessons = self._would_keep(window)
        design = best_design(below, lessons * window.ids.shape[1], self.settings.temperature)
        if decision.by == SCORED:
            self.payoff.see(design.gain)
        choice = self._select(window, decision, below, design.name)
        return replace(choice, scores=scores, metrics={"gain": design.gain})

    def _would_keep(self, window: Window) -> int:
        keep = self.keep(self.clock(0, window.epoch, window.share))
        return lesson_count(len(window.ids), keep)

    def _seen_again(self, window: Window, decision: Decision) -> dict[str, float]:
        """Predict the gain for a window that is kept whole, from the remembered samples in it."""
        lessons, rows = self._would_keep(window), len(window.ids)
        if decision.by != ALL or self.ledger is None or lessons == rows:
            return {}
        scores = self.ledger.recall(window.ids)
        known = scores[np.isfinite(scores)]
        if len(known) < _SAMPLE:
            return {}
        count = round(len(known) * lessons / rows)
        gain = best_design(known, count, self.settings.temperature).gain
        self.payoff.see(gain)
        return {"gain": gain}


PREDICTED = replace(PRUNE, teacher="attent_stream.experimental.predicted:PredictedTeacher")
