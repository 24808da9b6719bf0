"""The user's collate function, with checks of its rows and errors that name samples."""

import copy
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from attent_stream.arrange.cutting import collate_to_cut
from attent_stream.base.errors import CollateError, ScoreError
from attent_stream.base.watch import here
from attent_stream.data.blocks import Lender
from attent_stream.data.dataset import TeachingDataset
from attent_stream.data.one_block import in_one_block
from attent_stream.data.places import collate_fault, collate_name, places
from attent_stream.data.rows import miscounted, reordered
from attent_stream.data.tagged import Collated, Tagged

log = logging.getLogger(__name__)


class TaggedCollate:
    """The user's collate function, applied to ``Tagged`` or plain samples.

    If a taught batch does not have one row for each sample, ``Collated.fault`` says why.

    Args:
        collate: The user's collate function.
        dataset: The samples' data set.

    Raises:
        CollateError: The function raised, or its batch cannot be arranged. The message names the
            samples, their shards and the rank.
    """

    def __init__(self, collate: Callable[[list], Any], dataset: TeachingDataset) -> None:
        self.collate = collate
        self._dataset = dataset
        self._warned = False
        self._tried = False  # on samples in reverse
        self._reorders = False
        self._lender: Lender | None = None

    def send_to(self, key: str) -> None:
        """Send large batches in blocks that are used again.

        Args:
            key: Of the ``Blocks`` that receive them. Set before the workers start.
        """
        self._lender = Lender(key)

    def __call__(self, samples: list) -> Any:
        if not isinstance(samples[0], Tagged):
            return self._sent(self._plain(samples))
        given = [sample for some in samples for sample in some.samples]
        task = samples[0].task
        twin = self._twin() if task.units == 1 else None
        collate = self.collate if task.units == 1 else collate_to_cut(self.collate)
        try:
            batch = collate(given)
        except Exception as error:
            raise CollateError(collate_fault(self.collate, error, self._places(samples))) from error
        fault = "" if task.units > 1 else self._fault(samples, given, batch, twin)
        try:
            batch, features = task.made(batch, [piece for some in samples for piece in some.pieces])
        except ScoreError as error:
            raise CollateError(f"{error}; for {self._places(samples)}") from error
        if features is not None:
            features = row_each(features, len(given) // task.units)
        return Collated(samples[0].step, self._sent(batch), features=features, fault=fault)

    def _twin(self) -> Callable[[list], Any] | None:
        """Before the first batch, a copy of the collate function to try; else None."""
        if self._tried:
            return None
        self._tried = True
        with suppress(Exception):
            return copy.deepcopy(self.collate)
        return None

    def _fault(
        self, samples: list[Tagged], given: list, batch: Any, twin: Callable[[list], Any] | None
    ) -> str:
        """Why a batch does not have one row for each sample in order; empty if not known."""
        rows = miscounted(batch, len(given))
        if rows is not None:
            return (
                f"{self._counted(rows, len(given))} on {here()} for {self._places(samples)}: "
                "return one row for each sample, as scores and weights need it (two views of a "
                "sample as a row of shape (2, ...), and text packed when the corpus is written)"
            )
        if twin is not None:
            # The copy may fail where the function itself did not.
            with suppress(Exception):
                self._reorders = reordered(batch, twin(given[::-1]), len(given))
        if not self._reorders:
            return ""
        return (
            f"collate function {collate_name(self.collate)!r} reorders rows, so samples cannot be "
            "told apart: keep rows in the order of the samples, and sort within the model"
        )

    def _plain(self, samples: list) -> Any:
        batch = self.collate(samples)
        rows = None if self._warned else miscounted(batch, len(samples))
        if rows is not None:
            self._warned = True
            log.warning(
                "%s on %s. A resume within an epoch will start at the wrong sample, as it counts "
                "rows: return one row for each sample, or save checkpoints only at the end of "
                "epochs.",
                self._counted(rows, len(samples)),
                here(),
            )
        return batch

    def _counted(self, rows: int, samples: int) -> str:
        return (
            f"collate function {collate_name(self.collate)!r} made {rows} rows of {samples} samples"
        )

    def _places(self, samples: list[Tagged]) -> str:
        return places(self._dataset, [number for some in samples for number in some.ids])

    def _sent(self, batch: Any) -> Any:
        """The batch as a worker sends it. In the training process nothing is sent."""
        if get_worker_info() is None:
            return batch
        return in_one_block(batch, None if self._lender is None else self._lender.lend)


def row_each(features: NDArray, samples: int) -> NDArray:
    """Features with a row for each sample: zeros if the collate function made another number."""
    if len(features) == samples:
        return features
    return np.zeros((samples, features.shape[1]), features.dtype)
