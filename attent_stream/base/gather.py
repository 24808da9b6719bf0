"""What every rank has, on every rank; and work that they share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from composer.utils import dist as composer_dist
from numpy.typing import NDArray
from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.base.watch import collective


def gather_ranks(values: torch.Tensor, *, ranks: int, replication: int = 1) -> NDArray:
    """All ranks' values, without the copies that replication makes.

    Args:
        values: This rank's, of one axis or more, the same shape on all ranks.
        ranks: How many ranks with values of their own there must be.
        replication: How many consecutive ranks read the same samples (their values are taken to be
            the same).

    Returns:
        Array of shape (ranks, *values.shape), on the CPU.

    Raises:
        AttentError: Another number of ranks: torch.distributed is not initialised, or not for this
            job.
    """
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if world != ranks * replication:
        raise AttentError(
            f"expected torch.distributed to connect {ranks * replication} ranks, got {world}: "
            "build the Trainer (or call "
            f"torch.distributed.init_process_group) on every rank before iterating the loader"
        )
    if world == 1:
        return values.detach().cpu().numpy()[None]
    # Into one tensor: a list of thousands is thousands of copies on the device.
    everyone = values.new_empty((world * values.shape[0], *values.shape[1:]))
    with collective("the gathering of all ranks' scores"):
        dist.all_gather_into_tensor(everyone, values.detach().contiguous())
        return np.ascontiguousarray(
            everyone.view(world, *values.shape)[::replication].cpu().numpy()
        )


def first_fault(fault: str | None) -> str | None:
    """What the first rank that has something to say says; all ranks call this together."""
    return next((one for one in composer_dist.all_gather_object(fault) if one is not None), None)


@dataclass(frozen=True, kw_only=True)
class RankGroup:
    """Ranks that share work of which all need the results.

    Args:
        rank: This one.
        ranks: How many.
        to_device: Takes a tensor to where torch.distributed can add it up.
    """

    rank: int = 0
    ranks: int = 1
    to_device: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor

    @classmethod
    def of_world(cls, to_device: Callable[[torch.Tensor], torch.Tensor]) -> "RankGroup":
        """All ranks of torch.distributed; this one alone where it is not initialised."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(rank=dist.get_rank(), ranks=dist.get_world_size(), to_device=to_device)

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over ranks, which call this together: each has zeros where others have done the
        work.
        """
        if self.ranks == 1:
            return values
        shared = self.to_device(torch.from_numpy(values))
        with collective("the balancing of a window"):
            dist.all_reduce(shared)
            return shared.cpu().numpy()


ALONE = RankGroup()
