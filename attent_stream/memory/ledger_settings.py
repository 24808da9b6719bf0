"""What the ledger keeps, and in how much memory; and a ledger made so."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from streaming.base.util import bytes_to_int

from attent_stream.base.node_memory import meet, node_memory
from attent_stream.experimental.progress import ProgressLedger
from attent_stream.memory.ledger import GroupLedger, Ledger, SampleLedger, sample_bytes

PER = ("sample", "shard", "stream")

log = logging.getLogger(__name__)


class Samples(Protocol):
    """What a ledger must know of a data set.

    Attributes:
        num_samples: How many there are.
        sample_offset_per_shard: First sample id of each shard, shape (num_shards,).
        sample_offset_per_stream: First sample id of each stream, shape (num_streams,).
        shared_prefix: Number of the data set on this node.
    """

    num_samples: int
    sample_offset_per_shard: NDArray[np.int64]
    sample_offset_per_stream: NDArray[np.int64]

    @property
    def shared_prefix(self) -> int:
        """See above."""


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """What is remembered.

    Args:
        per: ``sample``, or the mean score of each ``shard`` or ``stream``.
        limit: Bytes a node, as a number or a string (``2gb``); where a score for each sample would
            take more, each shard's mean is kept, and the log says so.
        decay: Of a sample's score before, its share in the one that is remembered, in [0, 1).
        detrend: Whether a sample's score is remembered as its difference from the trend of new
            samples' scores, as losses fall while the first epoch goes on (``SampleLedger``); the
            means of shards and streams never are. It pays where a model begins at random and its
            first losses fall by far more than samples differ (docs/log.md). None: where ``auto``
            sees text again.
        score: What is remembered where AtteNT's own score is ``remembered``.

    Raises:
        ValueError: A value out of range.
    """

    per: str = "sample"
    limit: int | str = "2gb"
    decay: float = 0.0
    detrend: bool | None = None
    score: str = "loss"

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise ValueError(f"ledger.per must be one of {', '.join(PER)}, got {self.per!r}")
        if not (
            isinstance(self.decay, (int, float))
            and not isinstance(self.decay, bool)
            and 0 <= self.decay < 1
        ):
            raise ValueError(f"ledger.decay must be a share in [0, 1), got {self.decay!r}")
        if not isinstance(self.detrend, bool | None):
            raise ValueError(f"ledger.detrend must be true, false or null, got {self.detrend!r}")
        try:
            limit = self.bytes
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"ledger.limit must be bytes or a size such as '2gb', got {self.limit!r}"
            ) from error
        if isinstance(self.limit, bool) or limit < 1:
            raise ValueError(f"ledger.limit must be at least 1 byte, got {self.limit!r}")

    @classmethod
    def parse(cls, value: "str | Mapping[str, Any] | None") -> "LedgerSettings":
        """From ``per``'s name, a mapping of the settings, or None for the defaults.

        Raises:
            ValueError: Neither, or a value out of range.
        """
        if value is None or isinstance(value, str):
            return cls() if value is None else cls(per=value)
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) - set(names):
            raise ValueError(
                f"ledger must be one of {', '.join(PER)} or a mapping of {', '.join(names)}, got "
                f"{value!r}"
            )
        return cls(**value)

    @property
    def bytes(self) -> int:
        """``limit`` as a number."""
        return bytes_to_int(self.limit)


def open_ledger(
    settings: LedgerSettings,
    dataset: Samples,
    *,
    ages: bool,
    local_rank: int,
    ranks_per_node: int,
    progress: bool = False,
) -> Ledger:
    """An empty ledger for a data set; all ranks of the job must call it together.

    Args:
        settings: What it keeps.
        dataset: Whose samples.
        ages: Whether scores may grow too old.
        local_rank: Of this process on its node.
        ranks_per_node: They share one memory, into which local rank 0 writes.
        progress: Whether it is not scores that are kept, but how each stream's fall.

    Raises:
        AttentError: The node's shared memory is too small.
    """
    count, need = dataset.num_samples, sample_bytes(dataset.num_samples, ages)
    if progress:
        return ProgressLedger(dataset.sample_offset_per_stream, count)
    per = settings.per
    if per == "sample" and need > settings.bytes:
        per = "shard"
        log.warning(
            "A score for each of %d samples takes %d bytes a node, more than ledger.limit of %s: "
            "each shard's mean is kept instead.",
            count,
            need,
            settings.limit,
        )
    if per == "sample":
        shared = None
        if ranks_per_node > 1:
            name = f"{dataset.shared_prefix:06}_attent_ledger"
            shared = node_memory(
                name,
                need,
                leader=local_rank == 0,
                what="the ledger",
                advice="lower ledger.limit, or give it more",
            )
        made: Ledger = SampleLedger(
            count,
            ages=ages,
            decay=settings.decay,
            detrend=bool(settings.detrend),
            memory=shared,
            writes=shared is None or local_rank == 0,
            settle=_nothing if shared is None else partial(meet, "the remembering of scores"),
        )
    else:
        starts = (
            dataset.sample_offset_per_shard if per == "shard" else dataset.sample_offset_per_stream
        )
        made = GroupLedger(starts, count, per)
    log.info(
        "The ledger keeps the last scores of %d samples per %s, in %d bytes a node.",
        count,
        per,
        _bytes(made),
    )
    return made


def _nothing() -> None:
    """There is no other process to wait for."""


def _bytes(ledger: Ledger) -> int:
    parts = [part for part in ledger.state_dict().values() if isinstance(part, torch.Tensor)]
    return sum(part.numel() * part.element_size() for part in parts)
