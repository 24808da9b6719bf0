"""The epoch's number, for data sets and collate functions that vary by epoch."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from inspect import isclass, isfunction, ismethod, ismodule
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import get_worker_info

_ATTRIBUTES = 4  # depth to which attributes of objects are searched
_DEPTH = 8  # depth to which functions, partials and lists are searched
_LISTED = 64  # longer lists are data, not transforms


@runtime_checkable
class VariesByEpoch(Protocol):
    """An object that depends on the epoch and is told its number before each epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that begins."""


class EpochNumber:
    """An epoch's number in shared memory, for a rank and its loader workers."""

    def __init__(self) -> None:
        self._number = torch.zeros(1, dtype=torch.int64).share_memory_()

    def get(self) -> int:
        """Return the number."""
        return int(self._number)

    def set(self, number: int) -> None:
        """Set the number for all processes; a no-op in loader workers, which may be late."""
        if get_worker_info() is None:
            self._number[0] = number


def tell_epoch(epoch: int, *roots: Any) -> None:
    """Call ``set_epoch`` once on each object that ``varying_by_epoch`` finds."""
    for varying in varying_by_epoch(*roots):
        varying.set_epoch(epoch)


def varying_by_epoch(*roots: Any) -> list[VariesByEpoch]:
    """Find the objects with ``set_epoch`` among these objects and what they wrap.

    The search follows ``functools.partial`` and its arguments, bound methods, lists, attributes,
    and functions (closures, ``functools.wraps``, globals). It does not look inside an object that
    it finds.
    """
    found, seen = [], set()
    queue = deque((root, 0) for root in roots)
    while queue:
        value, depth = queue.popleft()
        if id(value) in seen or isclass(value) or ismodule(value):
            continue
        seen.add(id(value))
        if isinstance(value, VariesByEpoch) and callable(value.set_epoch):
            found.append(value)
        elif isinstance(value, (partial, list, tuple)) or ismethod(value) or isfunction(value):
            if depth < _DEPTH:
                queue.extend((inner, depth + 1) for inner in _wrapped(value))
        elif depth < _ATTRIBUTES:
            # Attributes of attributes belong to others, such as a tokenizer or a model.
            attributes = getattr(value, "__dict__", {}).values()
            queue.extend((inner, _ATTRIBUTES + depth) for inner in attributes)
    return found


def _wrapped(value: Any) -> Iterator[Any]:
    if isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif ismethod(value):
        yield from (value.__self__, value.__func__)
    elif isfunction(value):
        yield from vars(value).values()  # functools.wraps
        names = value.__code__.co_names
        yield from (value.__globals__[name] for name in names if name in value.__globals__)
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # an empty cell
                continue
    elif len(value) <= _LISTED:
        yield from value
