"""The samples of a target: a small data set that says what the model should be good at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from streaming import Stream

from attent_stream.corpus.columns import columns_of
from attent_stream.data.collated import collated
from attent_stream.data.dataset import TeachingDataset

LARGEST = 16384  # samples that are read, spread evenly over a larger target
SMALLEST = 20
_ASIDE = 10  # one sample in so many is kept aside


@dataclass(frozen=True, kw_only=True)
class TargetSamples:
    """The samples of a target.

    Args:
        dataset: Where they are read from.
        shown: Ids of the samples that say what to choose, by stream.
        aside: Ids of the samples that are kept aside to measure what came of it.
    """

    dataset: TeachingDataset
    shown: tuple[np.ndarray, ...]
    aside: np.ndarray

    def some_aside(self, count: int) -> np.ndarray:
        """Ids of so many of the samples that are kept aside, or of all, spread evenly over them."""
        number = min(count, len(self.aside))
        return self.aside[np.linspace(0, len(self.aside) - 1, number).astype(np.int64)]

    def batches(
        self,
        ids: np.ndarray,
        collate: Callable[[list], Any],
        *,
        size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> list[Any]:
        """Read a rank's share of some samples. Random states are kept.

        Args:
            ids: Sample ids of all ranks.
            collate: Collates samples.
            size: Samples of a batch.
            rank: This rank.
            ranks: Ranks that share them.
        """
        mine = ids[rank::ranks]
        return [
            collated(self.dataset, collate, mine[first : first + size])
            for first in range(0, len(mine), size)
        ]


def open_target(streams: Sequence[Stream], like: TeachingDataset) -> TargetSamples:
    """Open a target; the main processes of all ranks call this together.

    Args:
        streams: Where it is.
        like: The train data set, whose columns it must have.

    Raises:
        ValueError: It has other columns or too few samples, or StreamingDataset raises it.
        StoreError: Its index cannot be fetched.
    """
    dataset = TeachingDataset(streams=list(streams), batch_size=1, shuffle=False)
    own, others = (_columns(one) for one in (dataset, like))
    if not own <= others and not others <= own:
        raise ValueError(
            f"expected samples with the train data's columns ({', '.join(sorted(others))}), got "
            f"{', '.join(sorted(own))}"
        )
    count = dataset.num_samples
    if count < SMALLEST:
        raise ValueError(f"expected at least {SMALLEST} samples, better some hundreds, got {count}")
    every = np.unique(np.linspace(0, count - 1, min(count, LARGEST)).astype(np.int64))
    of_aside = np.arange(len(every)) % _ASIDE == _ASIDE - 1
    begins = np.asarray(dataset.sample_offset_per_stream)
    stream = np.searchsorted(begins, every, side="right") - 1
    shown = tuple(every[~of_aside & (stream == number)] for number in range(len(begins)))
    empty = [number for number, ids in enumerate(shown) if not len(ids)]
    if empty:
        raise ValueError(f"expected samples in each stream, got none in stream {empty[0]}")
    return TargetSamples(dataset=dataset, shown=shown, aside=every[of_aside])


def _columns(dataset: TeachingDataset) -> set[str]:
    return {name for columns in columns_of(dataset.shards.examples()) for name in columns}
