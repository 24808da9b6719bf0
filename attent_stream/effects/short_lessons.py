"""Lessons that are pieces of samples, one batch after the other."""

import logging

from composer import Event, State
from composer.loggers import Logger
from composer.utils import dist

from attent_stream.arrange.cutting import apart
from attent_stream.base.errors import ScoreError
from attent_stream.base.gather import first_fault
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect
from attent_stream.teach.teacher import Teacher

log = logging.getLogger(__name__)


class ShortLessons(Effect):
    """Takes batches apart, and gives a micro-batch as many tokens as one of whole samples has.

    Args:
        loader: Tells how many pieces the current batch's samples have.
        teacher: Stops cutting samples where batches cannot be taken apart.
        asked: Whether pieces were asked for by name: then a batch that cannot be taken apart is an
            error. If not, it is trained on as it is.
    """

    def __init__(self, loader: TeachingDataLoader, teacher: Teacher, *, asked: bool) -> None:
        self._loader, self._teacher, self._asked = loader, teacher, asked
        self._fault: str | None = None  # why a batch could not be taken apart
        self._agreed = False  # all ranks know of each other's first batch in pieces
        # The state whose micro-batch is larger now, and the micro-batch for samples and for pieces.
        self._enlarged: tuple[State, int, int] | None = None

    @property
    def _units(self) -> int:
        return 1 if self._loader.epoch is None else self._loader.epoch.units

    def idle(self, event: Event, state: State) -> bool:
        """Whole samples are left as they are."""
        return self._units == 1 and self._enlarged is None

    def batch_start(self, state: State, logger: Logger) -> None:
        """Take a batch apart before it is split into micro-batches.

        Raises:
            ScoreError: It was changed since it was collated, and pieces were asked for.
        """
        self._restore_microbatch(state)  # of a batch that was interrupted
        units, epoch = self._units, self._loader.epoch
        if epoch is None or units == 1:
            return
        try:
            state.batch = apart(state.batch, units, len(epoch.lesson[0]) // units)
        except ScoreError as error:
            if self._asked:
                raise
            if self._fault is None:
                log.warning(
                    "A batch is trained on as it is, each row %d pieces of different samples: %s",
                    units,
                    error,
                )
            self._fault = self._fault or str(error)
            return
        size = state.device_train_microbatch_size
        if isinstance(size, int):
            self._enlarged = state, size, size * units
            state.device_train_microbatch_size = size * units

    def batch_end(self, state: State, logger: Logger) -> None:
        """Restore the micro-batch. After the first batch in pieces, all ranks agree on a fault."""
        if self._units > 1 and not self._agreed:
            self._agreed = True
            if first_fault(self._fault) is not None:
                self._teacher.stop_arranging("pieces")
                if dist.get_global_rank() == 0:
                    log.warning("Lessons are not cut into pieces from the next window on.")
        self._restore_microbatch(state)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Restore the micro-batch."""
        self._restore_microbatch(state)

    def interrupted(self, state: State) -> None:
        """Restore the micro-batch after a fit that ended with an error."""
        self._restore_microbatch(state)

    def _restore_microbatch(self, state: State) -> None:
        known, self._enlarged = self._enlarged, None
        if known is None or known[0] is not state:
            return
        _, plain, larger = known
        size = state.device_train_microbatch_size
        # Composer makes it smaller where memory runs out.
        smaller = max(1, plain * size // larger)
        state.device_train_microbatch_size = plain if size == larger else smaller
