"""The time that a run has trained, without evaluations."""

import time

import torch
from composer import Callback, State
from composer.loggers import Logger


class TrainingTime(Callback):
    """A clock that pauses while the Trainer evaluates.

    Subclasses that override its events must call ``super()`` first or last.

    Attributes:
        seconds: Wall time of training until the last pause, teaching included.
        cpu_seconds: Processor time of this process over the same time.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._began: tuple[float, float] | None = None  # None while paused

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start the clock."""
        self._began = self._now()

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Pause the clock."""
        self._pause()

    def eval_after_all(self, state: State, logger: Logger) -> None:
        """Continue the clock."""
        self._began = self._now()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop the clock."""
        self._pause()

    def _pause(self) -> None:
        if self._began is not None:
            wall, cpu = self._now()
            self.seconds += wall - self._began[0]
            self.cpu_seconds += cpu - self._began[1]
            self._began = None

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # count queued kernels in the time before
        return time.perf_counter(), time.process_time()
