"""Lines that say how far a run is, where the output is no terminal."""

import time
from collections.abc import Callable

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from attent_stream.base.duration import clock_of

EVERY = 60.0  # seconds


class Progress(Callback):
    """Says at most once a minute how far training is, its loss, and how long the rest will take.

    Args:
        name: What each line begins with.
        say: Called with each line.
        clock: Seconds from some time on.
    """

    def __init__(
        self, name: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._say, self._clock = name, say, clock
        self._begun = self._said = clock()
        self._before = 0.0  # share of training that was done at the start

    def fit_start(self, state: State, logger: Logger) -> None:
        """See ``Callback``."""
        del logger
        self._begun = self._said = self._clock()
        self._before = clock_of(state).dur

    def batch_end(self, state: State, logger: Logger) -> None:
        """See ``Callback``."""
        del logger
        now = self._clock()
        if now - self._said < EVERY:
            return
        share = clock_of(state).dur
        if share >= 1.0 or share <= self._before:
            return
        self._said = now
        left = (now - self._begun) / (share - self._before) * (1 - share)
        step, loss = int(state.timestamp.batch), _loss(state)
        self._say(
            f"{self._name}: step {step}, {share:.0%} of training{loss}, {duration(left)} left"
        )


def _loss(state: State) -> str:
    """The loss of the last micro-batch, if it is one number."""
    loss = state.loss
    one = isinstance(loss, torch.Tensor) and loss.numel() == 1
    return f", loss {float(loss.detach()):.4f}" if one else ""


def duration(seconds: float) -> str:
    """Some seconds in words, e.g. "90 s", "7 min" or "3.2 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
