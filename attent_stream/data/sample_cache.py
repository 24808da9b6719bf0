"""Samples that a worker has read of late: candidates become lessons, and pieces share a sample."""

from collections import OrderedDict
from typing import Any

import numpy as np

LIMIT = 16 << 20  # bytes of a worker
_SCALARS = (bytes, str, int, float, bool, np.generic, type(None))
_FIXED = 64  # bytes of a value besides its data, about
_SAMPLE = 512  # of a sample besides its values


class SampleCache:
    """The samples that were read last, up to a number of bytes.

    It holds samples whose values cannot be changed in place, so that a reader cannot change what
    the next one gets: numbers, text, bytes and read-only arrays. Others are not held.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[int, tuple[dict[str, Any], int]] = OrderedDict()

    def get(self, sample_id: int) -> dict[str, Any] | None:
        """The sample as a dict of its own, or None."""
        found = self._held.get(sample_id)
        if found is None:
            return None
        self._held.move_to_end(sample_id)
        return dict(found[0])

    def put(self, sample_id: int, sample: Any) -> None:
        """Hold a sample, if it can be, in place of those that were not read for longest."""
        size = _size(sample)
        if size is None or size > self._limit or sample_id in self._held:
            return
        self._held[sample_id] = (dict(sample), size)
        self._size += size
        while self._size > self._limit:
            _, (_, freed) = self._held.popitem(last=False)
            self._size -= freed


def _size(sample: Any) -> int | None:
    """Bytes of a sample, about; None if it must not be held."""
    if type(sample) is not dict:
        return None
    size = _SAMPLE
    for value in sample.values():
        if isinstance(value, np.ndarray):
            if value.flags.writeable or value.dtype.hasobject:
                return None
            size += value.nbytes + _FIXED
        elif isinstance(value, _SCALARS):
            size += _FIXED + (len(value) if isinstance(value, (bytes, str)) else 0)
        else:
            return None
    return size
