"""How a run's batches are transformed, counted and split: as the Trainer's own ``DataSpec`` does
it.
"""

import sys
from typing import Any

from composer import DataSpec, Trainer
from composer.core.data_spec import default_split_batch

from attent_stream.model.batch import batch_length, split_batch


class BatchForm:
    """Treats candidates as the Trainer treats lessons.

    Args:
        spec: The ``DataSpec`` of the train loader; None: batches are taken as they are.
    """

    def __init__(self, spec: DataSpec | None = None) -> None:
        self._spec = spec

    @classmethod
    def of(cls, loader: Any) -> "BatchForm":
        """That of the Trainer that is fitting on ``loader`` now; to be called within
        ``Trainer.fit``.
        """
        return cls(_spec_of(loader))

    def transformed(self, batch: Any) -> Any:
        """A batch after the spec's ``batch_transforms``."""
        return batch if self._spec is None else self._spec.batch_transforms(batch)

    def rows(self, batch: Any) -> int:
        """How many samples a batch or microbatch holds.

        Raises:
            ScoreError: Nothing says so.
        """
        return (
            batch_length(batch)
            if self._spec is None
            else int(self._spec.get_num_samples_in_batch(batch))
        )

    def split(self, batch: Any, size: int) -> list[Any]:
        """Parts of a batch of at most ``size`` samples."""
        if self._spec is None or self._spec.split_batch is default_split_batch:
            return split_batch(batch, size, self.rows(batch))
        return list(self._spec.split_batch(batch, size))

    def parts(self, batch: Any, size: int) -> list[Any]:
        """Microbatches of at most ``size`` samples on the model's device, after the spec's
        ``microbatch_transforms``.
        """
        made = self.split(batch, size)
        return (
            made
            if self._spec is None
            else [self._spec.microbatch_transforms(part) for part in made]
        )


def _spec_of(loader: Any) -> DataSpec | None:
    # Composer's state holds the loader but not its DataSpec, which only the Trainer up the stack
    # has.
    frame = sys._getframe()
    while frame is not None:
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, Trainer):
            spec = trainer._train_data_spec
            return spec if spec is not None and spec.dataloader is loader else None
        frame = frame.f_back
    return None
