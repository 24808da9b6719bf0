"""A thread that makes a choice while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.gather import ALONE, RankGroup, Steps
from attent_stream.window.choice import Choice

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A rank's part of a sum that a choice waits for."""

    values: NDArray[np.int64]


class ChoiceThread(Generic[T]):
    """Makes one choice at a time. Ranks sum what they share in the main thread, in ``share``.

    Collectives of one process group must not be started by two threads, as ranks would start them
    in different sequences.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._pending: Future[_Part | T] | None = None
        self._go_on: Callable[[NDArray[np.int64] | None], _Part | T] | None = None
        self._group = ALONE
        self._shares = False

    @property
    def busy(self) -> bool:
        """Whether a choice was begun and not taken."""
        return self._pending is not None

    @property
    def shares(self) -> bool:
        """Whether the choice waits for ``share``."""
        return self._shares

    def begin(
        self, steps: Steps[Choice], finish: Callable[[Choice], T], *, group: RankGroup, shares: bool
    ) -> None:
        """Begin a choice.

        Args:
            steps: Makes the choice.
            finish: What is done with it, in the thread, too.
            group: The ranks that choose together.
            shares: Whether ``steps`` yields something, once, that several ranks must sum.
        """

        def go_on(total: NDArray[np.int64] | None) -> _Part | T:
            try:
                values = next(steps) if total is None else steps.send(total)
                while not shares:  # this rank is alone
                    values = steps.send(group.total(values))
                return _Part(values=values)
            except StopIteration as end:
                choice = end.value
            return finish(choice)

        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "attent-choice")
        self._go_on, self._group, self._shares = go_on, group, shares
        self._pending = self._executor.submit(go_on, None)

    def share(self) -> None:
        """Sum what the ranks share, if the choice waits for it; all ranks call this together."""
        if self._pending is None or self._executor is None or self._go_on is None:
            return
        part = self._pending.result()
        if isinstance(part, _Part):
            total = self._group.total(part.values)
            self._pending = self._executor.submit(self._go_on, total)
        self._shares = False  # not before: an interrupted sum is made again

    def take(self) -> T | None:
        """Wait for the choice, and return what was done with it; None if none was begun.

        All ranks call this together if it waits for ``share``.
        """
        if self._shares:
            self.share()
        if self._pending is None:
            return None
        made, self._pending = self._pending.result(), None
        if isinstance(made, _Part):
            raise RuntimeError("expected a choice that shares something once, got it again")
        return made

    def close(self) -> None:
        """Wait until the thread has ended."""
        if self._executor is not None:
            self._executor.shutdown()
