"""The epoch's number, for whatever in a data set or collate function varies by it."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from inspect import isclass, isfunction, ismethod, ismodule
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import get_worker_info

_ATTRIBUTES = 4  # how deep an object may lie for its attributes to be looked at
_DEPTH = 8  # how deep a function, partial or list may lie to be looked through
_LISTED = 64  # longer lists are data, not transforms


@runtime_checkable
class VariesByEpoch(Protocol):
    """What depends on the epoch, in a collate function or data set; it is told before each."""

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch that begins."""


class EpochNumber:
    """An epoch's number, one for a rank and its loader workers, in shared memory."""

    def __init__(self) -> None:
        self._number = torch.zeros(1, dtype=torch.int64).share_memory_()

    def get(self) -> int:
        """The number."""
        return int(self._number)

    def set(self, number: int) -> None:
        """Set it, for all processes; a loader worker does not: it may be late, and would take the
        epoch back for all.
        """
        if get_worker_info() is None:
            self._number[0] = number


def tell_epoch(epoch: int, *roots: Any) -> None:
    """Call ``set_epoch`` once of each that has it among these and what they wrap."""
    for varying in varying_by_epoch(*roots):
        varying.set_epoch(epoch)


def varying_by_epoch(*roots: Any) -> list[VariesByEpoch]:
    """Objects with ``set_epoch`` among these and what they wrap: behind ``functools.partial`` and
    its arguments, bound methods, functions (what they close over, wrap, or name as a global) and
    attributes. One that is found passes the epoch on itself.
    """
    found, seen = [], set()
    coming = deque((root, 0) for root in roots)
    while coming:
        value, depth = coming.popleft()
        if id(value) in seen or isclass(value) or ismodule(value):
            continue
        seen.add(id(value))
        if isinstance(value, VariesByEpoch) and callable(value.set_epoch):
            found.append(value)
        elif isinstance(value, (partial, list, tuple)) or ismethod(value) or isfunction(value):
            if depth < _DEPTH:
                coming.extend((part, depth + 1) for part in _wrapped(value))
        elif depth < _ATTRIBUTES:
            # Attributes of attributes are somebody else's: a tokenizer's, a model's.
            coming.extend(
                (part, _ATTRIBUTES + depth) for part in getattr(value, "__dict__", {}).values()
            )
    return found


def _wrapped(value: Any) -> Iterator[Any]:
    if isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif ismethod(value):
        yield from (value.__self__, value.__func__)
    elif isfunction(value):
        yield from vars(value).values()  # functools.wraps
        yield from (
            value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__
        )
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
    elif len(value) <= _LISTED:
        yield from value
