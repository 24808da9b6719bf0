"""Lessons that are pieces of samples, one batch after the other."""

import logging

from composer import State

from attent_stream.arrange.cutting import apart
from attent_stream.base.errors import ScoreError
from attent_stream.base.gather import first_fault

log = logging.getLogger(__name__)


class ShortLessons:
    """Takes batches apart, and sees to it that a microbatch has as many tokens as ever.

    Args:
        asked: Whether pieces were asked for by name: a batch that cannot be taken apart is then an
            error, else it is trained on as it is.
    """

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked
        self._fault: str | None = None  # why a batch of this fit could not be taken apart
        self._tried = False  # a batch of this fit, on all ranks
        self._microbatch: tuple[int, int] | None = None  # its size without pieces, and with them
        self._state: State | None = None  # whose

    def open(self) -> None:
        """Be there for a fit."""
        self._fault, self._tried = None, False

    def begin_batch(self, state: State, pieces: int, rows: int) -> None:
        """Before a batch is split into microbatches.

        Args:
            state: Of the run; its batch is as ``together`` made it.
            pieces: Into which each sample is cut.
            rows: How many samples' worth there are.

        Raises:
            ScoreError: The batch has been changed since, and pieces were asked for.
        """
        self.end_batch(state)  # of one that was interrupted
        if pieces == 1:
            return
        try:
            state.batch = apart(state.batch, pieces, rows)
        except ScoreError as error:
            if self._asked:
                raise
            if self._fault is None:
                log.warning(
                    "A batch is trained on as it is, each row %d pieces of different samples: %s",
                    pieces,
                    error,
                )
            self._fault = self._fault or str(error)
            return
        size = state.device_train_microbatch_size
        if isinstance(size, int):
            self._microbatch, self._state = (size, size * pieces), state
            state.device_train_microbatch_size = size * pieces

    def end_batch(self, state: State) -> None:
        """After its last backward."""
        of_another = self._state is not state
        known, self._microbatch, self._state = self._microbatch, None, None
        if known is None or of_another:
            return
        plain, larger = known
        size = state.device_train_microbatch_size
        # Composer makes it smaller where memory runs out.
        state.device_train_microbatch_size = (
            plain if size == larger else max(1, plain * size // larger)
        )

    def agreed_fault(self, pieces: int) -> str | None:
        """After a fit's first batch in pieces: why it could not be taken apart, on any rank; all
        ranks call this together.

        Args:
            pieces: Into which each sample of the batch is cut.
        """
        if self._tried or pieces == 1:
            return None
        self._tried = True
        return first_fault(self._fault)
