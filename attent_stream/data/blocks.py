"""Shared memory in which workers hand over large batches, used again once training is done with it.

A new piece of shared memory for each batch costs both processes more than the batch itself: it is
made, its descriptor is sent, and each of its pages is mapped for the first time, twice. So a worker
keeps its blocks. A block's first byte says whether the training process still has a tensor in it.
"""

import os
import secrets
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.base.errors import AttentError

HEADER = 64  # bytes before the batch: whether it is in use, and room to keep tensors aligned
MOST = 16  # blocks of a worker
_FREE, _IN_USE = 0, 1

_open: "weakref.WeakValueDictionary[str, Blocks]" = weakref.WeakValueDictionary()


@dataclass(eq=False)
class Block:
    """A block of the worker that made it.

    Args:
        key: Of the ``Blocks`` of the training process that it is sent to.
        worker: Number of the worker, which no other worker has.
        number: Number of the block in its worker.
        memory: Header and batch, uint8, shared.
    """

    key: str
    worker: int
    number: int
    memory: Tensor
    sent: bool = False
    gone: tuple[int, ...] = ()
    flag: NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.flag = self.memory.numpy()[:1]

    @property
    def bytes(self) -> Tensor:
        """Where the batch is written, uint8."""
        return self.memory[HEADER:]

    def __reduce__(self) -> tuple[Callable, tuple]:
        """Only the first time does the memory itself travel. It arrives as a tensor, uint8."""
        memory, gone = None if self.sent else self.memory, self.gone
        self.sent, self.gone = True, ()
        return _received, (self.key, self.worker, self.number, memory, gone)


class Lender:
    """The blocks of a worker.

    Args:
        key: Of the ``Blocks`` that they are sent to.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._process = 0
        self._worker = 0
        self._blocks: list[Block] = []
        self._made = 0
        self._gone: list[int] = []

    def lend(self, size: int) -> Block | None:
        """A block that is free, and in use from now on.

        Args:
            size: Bytes that it must hold, without its header.

        Returns:
            The block; None if training holds as many as a worker may have.
        """
        if self._process != os.getpid():  # a fork does not share its parent's blocks
            self._process, self._worker = os.getpid(), secrets.randbits(62)
            self._blocks, self._made, self._gone = [], 0, []
        free = [block for block in self._blocks if block.flag[0] == _FREE]
        fitting = [block for block in free if block.memory.numel() >= HEADER + size]
        if fitting:
            block = min(fitting, key=lambda one: one.memory.numel())
        else:
            if free:  # too small: a larger one takes its place
                self._blocks.remove(free[0])
                self._gone.append(free[0].number)
            if len(self._blocks) >= MOST:
                return None
            block = self._new(size)
        block.gone, self._gone = tuple(self._gone), []
        block.flag[0] = _IN_USE
        return block

    def _new(self, size: int) -> Block:
        # Pages that are never written to take no memory
        capacity = 1 << (HEADER + size - 1).bit_length()
        block = Block(self._key, self._worker, self._made, shared_bytes(capacity))
        self._made += 1
        self._blocks.append(block)
        return block


class Blocks:
    """The blocks that a training process has received, as long as their workers live."""

    def __init__(self) -> None:
        self.key = secrets.token_hex(8)
        self._memory: dict[tuple[int, int], Tensor] = {}
        self._tensors: dict[tuple[int, int], weakref.ref] = {}
        _open[self.key] = self

    def receive(self, worker: int, number: int, memory: Tensor | None, gone: Any) -> Tensor:
        """The bytes of a batch. Their block is free when no tensor of this memory is left.

        Args:
            worker: Number of the worker.
            number: Number of its block.
            memory: The block's memory, if it is new.
            gone: Numbers of the worker's blocks that will not be used again.

        Raises:
            AttentError: The block's memory was never received.
        """
        for old in gone:
            self._memory.pop((worker, old), None)
            self._tensors.pop((worker, old), None)
        at = worker, number
        if memory is not None:
            self._memory[at] = memory
        if at not in self._memory:
            raise _unknown(number)
        return self._leased(at)

    def _leased(self, at: tuple[int, int]) -> Tensor:
        whole = self._memory[at].numpy()
        flag = whole[:1]
        # The storage of a tensor holds the array that it is made from: it goes with the last
        # tensor of this storage, whichever thread lets go of it.
        part = whole[HEADER:]
        self._tensors[at] = weakref.ref(part, lambda _: flag.__setitem__(0, _FREE))
        return torch.from_numpy(part)


def shared_bytes(size: int) -> Tensor:
    """New shared memory, uint8 of shape (size,)."""
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))


def _received(key: str, worker: int, number: int, memory: Tensor | None, gone: Any) -> Tensor:
    blocks = _open.get(key)
    if blocks is not None:
        return blocks.receive(worker, number, memory, gone)
    if memory is None:
        raise _unknown(number)
    return memory[HEADER:]  # nobody frees it, so the worker makes others


def _unknown(number: int) -> AttentError:
    return AttentError(f"a worker's batch is in block {number}, which this process never received")
