"""What a teacher does, in settings that are checked once."""

import math
from dataclasses import dataclass

import numpy as np

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.schedule import Interval, Phases, ShareSchedule
from attent_stream.window.selectors import Selector, selector

# Share of a window's samples that must be known for a choice without reading the candidates: an
# epoch may have left out a few, or a few may have had no score.
_ENOUGH = 0.9


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What a teacher does.

    Args:
        keep: Share of a window's rows to keep, over training.
        select: Name of a selector.
        temperature: Temperature of selectors that draw, above 0.
        interval: How long a remembered score is used.
        phases: When to teach.
        seed: Seed of every draw.
        ceiling: Share of the highest scores, in each lane of a window, that are taken for noise.
        enough: Share of a window's samples that must be remembered to choose it without scoring.
        most_memorized: Share by which the losses of samples that come again may be lower than those
            of new ones. Above it, windows are not chosen by remembered scores, but kept whole.
        arrangements: What becomes of the selected samples.
        view: Name of what candidates are scored by; empty for their batches.

    Raises:
        ValueError: An unknown selector, or a value out of range.
    """

    keep: ShareSchedule
    select: str
    temperature: float
    interval: Interval
    phases: Phases
    seed: int
    ceiling: float = 0.0
    enough: float = _ENOUGH
    most_memorized: float = math.inf
    arrangements: Arrangements = Arrangements()
    view: str = ""

    @property
    def chosen(self) -> Selector:
        """The selector."""
        return selector(self.select)

    def __post_init__(self) -> None:
        selector(self.select)
        if not _is_number(self.temperature) or not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature must be a positive number, got {self.temperature!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")
        if not _is_number(self.ceiling) or not 0 <= self.ceiling < 1:
            raise ValueError(f"scoring.ceiling must be a share in [0, 1), got {self.ceiling!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
