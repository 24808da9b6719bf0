"""Hand a batch's tensors from a worker to the training process in one block.

torch sends a file descriptor for each tensor. Each takes a connection of its own on which both
sides prove that they know a key: a good part of what a small batch costs both processes. Here all
tensors of a batch are copied into one block, as torch would copy each. A small block goes through
the queue's pipe as it is, and a large one is one piece of shared memory, which is used again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from attent_stream.data.blocks import Block, shared_bytes

SMALL = 1 << 16  # bytes: below it the pipe is faster than a block that is there already
LARGE = 1 << 18  # bytes: below it the pipe is faster than a block that must be made
_ALIGNED = 64  # bytes


class _Place(NamedTuple):
    """Where a tensor lies in the block."""

    first: int  # byte
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class OneBlock:
    """A batch whose tensors are in one block.

    Args:
        block: The bytes of all tensors: a bytearray, or uint8 in shared memory; in the worker maybe
            a block that is used again, which arrives as a tensor.
        places: Where each tensor lies.
        leaves: The batch's leaves, with a tensor's number in ``places`` for each tensor in the
            block.
        packed: Which leaves are in the block.
        spec: How the leaves make the batch.
    """

    block: bytearray | Tensor | Block
    places: tuple[_Place, ...]
    leaves: list[Any]
    packed: list[bool]
    spec: pytree.TreeSpec

    def batch(self) -> Any:
        """The batch. Its tensors may be written to. They share the block's memory, so that one
        tensor that is kept keeps the memory of all.
        """
        made = [_view(_bytes(self.block), place) for place in self.places]
        leaves = [
            made[leaf] if packed else leaf
            for leaf, packed in zip(self.leaves, self.packed, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self.spec)

    def pin_memory(self, device: Any = None) -> Any:
        """The batch in pinned memory, for torch's thread that pins what workers return."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return pin_memory(self.batch(), device)


def in_one_block(batch: Any, lend: Callable[[int], Block | None] | None = None) -> Any:
    """Copy a batch's tensors into one block.

    What cannot be copied without a difference stays a leaf as it is: tensors that are not plain,
    dense, contiguous and on the CPU, and everything else.

    Args:
        batch: What a collate function made.
        lend: Lends a block of so many bytes, see ``Lender``.

    Returns:
        A ``OneBlock``; or the batch itself, if it has no such tensor, or if tensors share memory.
    """
    leaves, spec = pytree.tree_flatten(batch)
    numbers: dict[int, int] = {}  # of each tensor object
    tensors: list[Tensor] = []
    packed = [_plain(leaf) for leaf in leaves]
    for at, leaf in enumerate(leaves):
        if packed[at]:
            if id(leaf) not in numbers:
                numbers[id(leaf)] = len(tensors)
                tensors.append(leaf)
            leaves[at] = numbers[id(leaf)]
    others = {
        id(leaf): leaf
        for leaf, inside in zip(leaves, packed, strict=True)
        if not inside and isinstance(leaf, Tensor) and leaf.layout is torch.strided
    }
    every = [*tensors, *others.values()]
    memory = {tensor.untyped_storage().data_ptr() for tensor in every}
    if not tensors or len(memory) < len(every):
        return batch
    places, end = [], 0
    for tensor in tensors:
        places.append(_Place(end, tensor.shape, tensor.dtype))
        end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    block = _block(end, lend)
    for tensor, place in zip(tensors, places, strict=True):
        _view(_bytes(block), place).copy_(tensor)
    return OneBlock(block, tuple(places), leaves, packed, spec)


def _block(size: int, lend: Callable[[int], Block | None] | None) -> bytearray | Tensor | Block:
    lent = lend(size) if lend is not None and size >= SMALL else None
    if lent is not None:
        return lent
    if size < LARGE:
        return bytearray(size)
    return shared_bytes(size)


def as_batch(given: Any) -> Any:
    """The batch that a worker returned."""
    return given.batch() if isinstance(given, OneBlock) else given


def _plain(leaf: Any) -> bool:
    return (
        type(leaf) is Tensor
        and leaf.device.type == "cpu"
        and leaf.layout is torch.strided
        and leaf.numel() > 0
        and leaf.is_contiguous()
        and not (leaf.requires_grad or leaf.is_quantized or leaf.is_conj() or leaf.is_neg())
        and not leaf.is_shared()
    )


def _bytes(block: bytearray | Tensor | Block) -> Tensor:
    """The block as a tensor, uint8, of the same memory."""
    if isinstance(block, Block):
        return block.bytes
    return torch.frombuffer(block, dtype=torch.uint8) if isinstance(block, bytearray) else block


def _view(block: Tensor, place: _Place) -> Tensor:
    """A tensor of the block's memory. It is no view for autograd: writing to one does not count as
    writing to another.
    """
    first = (block.storage_offset() + place.first) // place.dtype.itemsize
    made = torch.empty(0, dtype=place.dtype)
    return made.set_(block.untyped_storage(), first, place.shape)
