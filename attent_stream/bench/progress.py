"""Lines that say how far a run is, also where the output is no terminal."""

import time
from collections.abc import Callable

from composer.core import Callback, State
from composer.loggers import Logger

EVERY = 60.0  # seconds


class Progress(Callback):
    """Says after each minute how many steps are trained, and how long the others will take.

    Args:
        name: What each line begins with.
        steps: Steps of the run.
        say: Called with each line.
        clock: Seconds from some time on.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._steps, self._say, self._clock = name, steps, say, clock
        self._begun = self._said = clock()

    def fit_start(self, state: State, logger: Logger) -> None:
        del state, logger
        self._begun = self._said = self._clock()

    def batch_end(self, state: State, logger: Logger) -> None:
        del logger
        now, step = self._clock(), int(state.timestamp.batch)
        if now - self._said < EVERY or step >= self._steps:
            return
        self._said = now
        left = (now - self._begun) / step * (self._steps - step)
        self._say(f"{self._name}: step {step} of {self._steps}, {duration(left)} left")


def duration(seconds: float) -> str:
    """Some seconds in words, e.g. "90 s" or "7 min"."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
