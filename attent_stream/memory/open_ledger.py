"""A ledger for a data set."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.node_memory import meet, node_memory
from attent_stream.base.registry import Registry
from attent_stream.memory.ledger import GroupLedger, Ledger, SampleLedger, sample_bytes
from attent_stream.memory.remember import Remember

log = logging.getLogger(__name__)


class Samples(Protocol):
    """What a ledger must know of a data set.

    Attributes:
        num_samples: Number of samples.
        sample_offset_per_shard: First sample id of each shard, shape (num_shards,).
        sample_offset_per_stream: First sample id of each stream, shape (num_streams,).
    """

    num_samples: int
    sample_offset_per_shard: NDArray[np.int64]
    sample_offset_per_stream: NDArray[np.int64]

    @property
    def shared_prefix(self) -> int:
        """Number of the data set on this node."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A ledger that is asked for.

    Args:
        settings: What it keeps.
        dataset: Whose samples.
        ages: Whether scores may grow too old to be used.
        local_rank: Rank of this process on its node.
        ranks_per_node: Ranks that share one memory, into which local rank 0 writes.
    """

    settings: Remember
    dataset: Samples
    ages: bool
    local_rank: int
    ranks_per_node: int


def _per_sample(request: Request) -> Ledger:
    count = request.dataset.num_samples
    need, settings = sample_bytes(count, request.ages), request.settings
    if need > settings.bytes:
        log.warning(
            "A score for each of %d samples takes %d bytes of a node, more than remember.limit of "
            "%s: each shard's mean is kept instead.",
            count,
            need,
            settings.limit,
        )
        return _per_shard(request)
    shared = None
    if request.ranks_per_node > 1:
        shared = node_memory(
            f"{request.dataset.shared_prefix:06}_attent_ledger",
            need,
            leader=request.local_rank == 0,
            what="the ledger",
            advice="lower remember.limit, or give it more",
        )
    return SampleLedger(
        count,
        ages=request.ages,
        detrend=bool(settings.detrend),
        memory=shared,
        writes=shared is None or request.local_rank == 0,
        settle=_nothing if shared is None else partial(meet, "the remembering of scores"),
    )


def _per_shard(request: Request) -> Ledger:
    starts = request.dataset.sample_offset_per_shard
    return GroupLedger(starts, request.dataset.num_samples, "shard")


def _per_stream(request: Request) -> Ledger:
    starts = request.dataset.sample_offset_per_stream
    return GroupLedger(starts, request.dataset.num_samples, "stream")


LEDGERS: Registry[Callable[[Request], Ledger]] = Registry(
    "remember.per", {"sample": _per_sample, "shard": _per_shard, "stream": _per_stream}
)


def open_ledger(request: Request) -> Ledger:
    """An empty ledger; all ranks of the job must call this together.

    Raises:
        AttentError: The node's shared memory is too small.
        ValueError: An unknown kind of ledger.
    """
    made = LEDGERS.get(request.settings.per)(request)
    log.info(
        "The ledger keeps the last scores of %d samples per %s.", len(made), request.settings.per
    )
    return made


def _nothing() -> None:
    """There is no other process to wait for."""
