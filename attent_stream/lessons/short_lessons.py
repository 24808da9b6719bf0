"""Lessons that are pieces of samples, one batch after the other."""

from composer import State

from attent_stream.scoring.pieces import apart


class ShortLessons:
    """Takes batches apart, and sees to it that a microbatch has as many tokens as ever."""

    def __init__(self) -> None:
        self._microbatch: tuple[int, int] | None = None  # its size without pieces, and with them
        self._state: State | None = None  # whose

    def begin_batch(self, state: State, pieces: int, rows: int) -> None:
        """Before a batch is split into microbatches.

        Args:
            state: Of the run; its batch is as ``together`` made it.
            pieces: Into which each sample is cut.
            rows: How many samples' worth there are.

        Raises:
            ScoreError: The batch has been changed since.
        """
        self.end_batch(state)  # of one that was interrupted
        if pieces == 1:
            return
        state.batch = apart(state.batch, pieces, rows)
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
        state.device_train_microbatch_size = plain if size == larger else max(1, plain * size // larger)
