"""Lessons that are pieces of samples, one batch after the other."""

from composer import State

from attent_stream.scoring.pieces import apart


class ShortLessons:
    """Takes batches apart, and sees to it that a microbatch has as many tokens as ever."""

    def __init__(self) -> None:
        self._microbatch: tuple[int, int] | None = None  # its size without pieces, and with them

    def begin_batch(self, state: State, pieces: int) -> None:
        """Once a batch is on its device, before it is split into microbatches."""
        if pieces == 1:
            return
        state.batch = apart(state.batch, pieces)
        size = state.device_train_microbatch_size
        if isinstance(size, int):
            self._microbatch = size, size * pieces
            state.device_train_microbatch_size = size * pieces

    def end_batch(self, state: State) -> None:
        """After its last backward."""
        if self._microbatch is None:
            return
        (plain, larger), self._microbatch = self._microbatch, None
        size = state.device_train_microbatch_size
        # Composer makes it smaller where memory runs out.
        state.device_train_microbatch_size = plain if size == larger else max(1, plain * size // larger)
