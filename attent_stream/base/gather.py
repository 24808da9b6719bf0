"""Gather values of all ranks, and share work among ranks."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from composer.utils import dist as composer_dist
from numpy.typing import NDArray
from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.base.watch import collective

T = TypeVar("T")
# Ranks, and an index for each
Pick = tuple[NDArray[np.int64], NDArray[np.int64]]
# Yields this rank's part of a sum, and is sent the sum over all ranks
Steps = Generator[NDArray[np.int64], NDArray[np.int64], T]


def gather_ranks(
    values: torch.Tensor, *, ranks: int, replication: int = 1, pick: Pick | None = None
) -> NDArray:
    """Gather the values of all ranks, without the duplicates that replication makes.

    Args:
        values: This rank's values, of one axis or more and the same shape on all ranks.
        ranks: Number of ranks with values of their own.
        replication: Number of consecutive ranks that read the same samples and so have the same
            values.
        pick: What to return of them: ranks, and indices of the second axis, each of shape (m,).
            None: everything.

    Returns:
        Array of shape (ranks, *values.shape), on the CPU. With ``pick`` of shape (n, m, ...) for
        values of shape (n, k, ...).

    Raises:
        AttentError: torch.distributed connects another number of ranks.
    """
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if world != ranks * replication:
        raise AttentError(
            f"expected torch.distributed to connect {ranks * replication} ranks, got {world}: "
            "build the Trainer (or call torch.distributed.init_process_group) on every rank "
            "before iterating the loader"
        )
    if world == 1:
        return _picked(values.detach()[None], pick).cpu().numpy()
    # One tensor: a list of thousands of tensors would take thousands of copies on the device.
    gathered = values.new_empty((world * values.shape[0], *values.shape[1:]))
    with collective("the gathering of all ranks' scores"):
        dist.all_gather_into_tensor(gathered, values.detach().contiguous())
        distinct = gathered.view(world, *values.shape)[::replication]
        # Picked on the device: in a large job each rank needs little of what all have
        return np.ascontiguousarray(_picked(distinct, pick).cpu().numpy())


def _picked(values: torch.Tensor, pick: Pick | None) -> torch.Tensor:
    if pick is None:
        return values
    rank, index = (torch.from_numpy(which).to(values.device) for which in pick)
    return values[rank, :, index].transpose(0, 1).contiguous()


def first_fault(fault: str | None) -> str | None:
    """Return the fault of the first rank that has one; all ranks call this together."""
    return next((one for one in composer_dist.all_gather_object(fault) if one is not None), None)


@dataclass(frozen=True, kw_only=True)
class RankGroup:
    """Ranks that share work and all need its results.

    Args:
        rank: This rank.
        ranks: Number of ranks.
        to_device: Moves a tensor to a device on which torch.distributed can reduce it.
    """

    rank: int = 0
    ranks: int = 1
    to_device: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor

    @classmethod
    def of_world(cls, to_device: Callable[[torch.Tensor], torch.Tensor]) -> "RankGroup":
        """Make the group of all ranks, or of this one if torch.distributed is not initialized."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(rank=dist.get_rank(), ranks=dist.get_world_size(), to_device=to_device)

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum over all ranks, which call this together, in the shape of ``values``."""
        if self.ranks == 1:
            return values
        shared = self.to_device(torch.from_numpy(values))
        with collective("the counting or balancing of a window"):
            dist.all_reduce(shared)
            return shared.cpu().numpy()


ALONE = RankGroup()


def summed(steps: Steps[T], group: RankGroup) -> T:
    """Take steps to their end, and return what they return; all ranks call this together."""
    try:
        part = next(steps)
        while True:
            part = steps.send(group.total(part))
    except StopIteration as end:
        return end.value
