"""The epoch's number for collate functions that vary by it, in shared memory so that persistent workers see it too."""

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class VariesByEpoch(Protocol):
    """A collate function whose result depends on the epoch; TeachingDataLoader tells it before each."""

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch that begins."""


class EpochNumber:
    """An epoch's number, one for a rank and its loader workers."""

    def __init__(self) -> None:
        self._number = torch.zeros(1, dtype=torch.int64).share_memory_()

    def get(self) -> int:
        """The number."""
        return int(self._number)

    def set(self, number: int) -> None:
        """Set it, for all processes."""
        self._number[0] = number
