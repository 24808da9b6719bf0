"""Whether teaching pays: the speed-up predicted from the scores' own spread, against what scoring
costs.

Katharopoulos and Fleuret (ICML 2018, arXiv 1803.00942) switch importance sampling on when the
variance it takes away exceeds what it costs; here, in Composer's stream, a step whose lessons were
drawn by a design of ``inclusion`` is worth ``gain`` plain ones (``inclusion.moment_gain``) and
takes ``1 + cost / (3 keep)`` of one's time, if the candidates are scored at ``cost`` forwards each
(a forward is a third of a step), and 1 if their scores are remembered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attent_stream.experimental.inclusion import INCLUSIONS, moment_gain

MARGIN = 0.02  # by which the gain must exceed the cost: scores are gradient norms only roughly
_PROBE_EVERY = 64  # windows, while nothing is taught
_PROBE_COST = 0.01  # of the run's time, at most
_DECAY = 0.5  # of the gain's moving average, a window


@dataclass(frozen=True, kw_only=True)
class Design:
    """A way to draw a window's lessons.

    Args:
        name: In ``INCLUSIONS``.
        gain: How many plain steps a step is worth, by prediction.
    """

    name: str
    gain: float


def best_design(scores: NDArray[np.floating], count: int, temperature: float = 1.0) -> Design:
    """The design of the largest predicted gain.

    Args:
        scores: Of all candidates, any shape.
        count: How many become lessons.
        temperature: Of the designs.
    """
    flat = scores.reshape(-1).astype(np.float64)
    designs = [
        Design(name=name, gain=moment_gain(flat, inclusion(flat, count, temperature)))
        for name, inclusion in INCLUSIONS.items()
    ]
    return max(designs, key=lambda design: design.gain)


class Payoff:
    """Says when to teach.

    Args:
        cost: Of scoring one candidate, in forwards; the same on every rank and in every run of the
            same settings, as decisions depend on it.
        gain: Moving average of the predicted gain of scored windows, None before the first.
    """

    def __init__(self, cost: float, gain: float | None = None) -> None:
        self.cost = cost
        self.gain = gain

    def pays(self, gain: float, keep: float, scored: bool) -> bool:
        """Whether a step worth ``gain`` plain ones is worth its time.

        Args:
            gain: Predicted.
            keep: Share of the candidates that become lessons.
            scored: Whether the candidates are forwarded to score them.
        """
        return gain > 1 + MARGIN + (self.cost / (3 * keep) if scored else 0.0)

    def scores(self, keep: float) -> bool:
        """Whether a window whose scores are not remembered had better be scored and taught."""
        return self.gain is not None and self.pays(self.gain, keep, scored=True)

    def probes(self, index: int, share: float) -> bool:
        """Whether to score a window only to see what it would gain.

        Args:
            index: Which window of the epoch.
            share: Of the epoch's rows before it.
        """
        windows = index / share if share > 0 else 0.0
        return index % _PROBE_EVERY == 1 and self.cost / 3 <= _PROBE_COST * min(
            windows, _PROBE_EVERY
        )

    def see(self, gain: float) -> None:
        """Take in the predicted gain of a scored window."""
        self.gain = gain if self.gain is None else _DECAY * self.gain + (1 - _DECAY) * gain
