"""How long a run has trained, evaluations left out."""

import time

import torch
from composer import Callback, State
from composer.loggers import Logger


class TrainingTime(Callback):
    """A clock that stands still while the Trainer evaluates. Subclasses that listen to its events
    call it first or last.

    Attributes:
        seconds: Wall time of training until the last pause, teaching included.
        cpu_seconds: Processor time of this process, the same.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._began: tuple[float, float] | None = None  # None while no training goes on

    def fit_start(self, state: State, logger: Logger) -> None:
        """Go."""
        self._began = self._now()

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Pause."""
        self._pause()

    def eval_after_all(self, state: State, logger: Logger) -> None:
        """Go."""
        self._began = self._now()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop."""
        self._pause()

    def _pause(self) -> None:
        if self._began is not None:
            wall, cpu = self._now()
            self.seconds += wall - self._began[0]
            self.cpu_seconds += cpu - self._began[1]
            self._began = None

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # what was queued belongs to what went before
        return time.perf_counter(), time.process_time()
