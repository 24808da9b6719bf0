"""Batches are transformed, counted and split as the Trainer's ``DataSpec`` does it."""

import sys
from typing import Any

from composer import DataSpec, Trainer
from composer.core.data_spec import default_split_batch

from attent_stream.model.batch import batch_length, split_batch


class BatchForm:
    """Treats candidates as the Trainer treats lessons.

    Args:
        spec: The train loader's ``DataSpec``. None: batches are not transformed.
        by_tokens: Whether the Trainer weights micro-batches by their tokens, not by their samples.
    """

    def __init__(self, spec: DataSpec | None = None, *, by_tokens: bool = False) -> None:
        self._spec, self._by_tokens = spec, by_tokens

    @classmethod
    def of(cls, loader: Any) -> "BatchForm":
        """Use the ``DataSpec`` of the Trainer that fits on ``loader``; call it within
        ``Trainer.fit``.
        """
        trainer = _trainer()
        spec = None if trainer is None else trainer._train_data_spec
        if trainer is None or spec is None or spec.dataloader is not loader:
            return cls()
        return cls(spec, by_tokens=trainer.accumulate_train_batch_on_tokens)

    def transformed(self, batch: Any) -> Any:
        """Apply the spec's ``batch_transforms``."""
        return batch if self._spec is None else self._spec.batch_transforms(batch)

    def rows(self, batch: Any) -> int:
        """Count the samples of a batch or microbatch.

        Raises:
            ScoreError: See ``batch_length``.
        """
        if self._spec is None:
            return batch_length(batch)
        return int(self._spec.get_num_samples_in_batch(batch))

    def weight(self, batch: Any) -> int:
        """What the Trainer weights a micro-batch by: its samples, or its tokens in its count."""
        if self._spec is None or not self._by_tokens:
            return self.rows(batch)
        return int(self._spec.get_num_tokens_in_batch(batch, token_type="loss_generating"))

    @property
    def splits_in_order(self) -> bool:
        """Whether micro-batches are known to be consecutive rows of a batch."""
        return self._spec is not None and self._spec.split_batch is default_split_batch

    def split(self, batch: Any, size: int) -> list[Any]:
        """Split a batch into microbatches of at most ``size`` samples."""
        if self._spec is None or self._spec.split_batch is default_split_batch:
            return split_batch(batch, size, self.rows(batch))
        return list(self._spec.split_batch(batch, size))

    def parts(self, batch: Any, size: int) -> list[Any]:
        """Split a batch and apply the spec's ``microbatch_transforms``."""
        microbatches = self.split(batch, size)
        if self._spec is None:
            return microbatches
        return [self._spec.microbatch_transforms(one) for one in microbatches]


def _trainer() -> Trainer | None:
    # Composer's state holds the loader but not its DataSpec. Only the Trainer up the stack has it.
    frame = sys._getframe()
    while frame is not None:
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, Trainer):
            return trainer
        frame = frame.f_back
    return None
