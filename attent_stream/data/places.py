"""Sample ids, streams and shards, in words for error messages."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from attent_stream.base.watch import here


def places(dataset: Any, ids: Sequence[int]) -> str:
    """Describe samples by shard: ``samples 3, 17 (stream 0, LOCAL/shard.00000.mds); 40 (...)``.

    Args:
        dataset: The samples' StreamingDataset.
        ids: Sample ids.
    """
    samples = np.unique(np.asarray(ids, np.int64))
    shards = np.searchsorted(dataset.sample_offset_per_shard, samples, side="right") - 1
    told = []
    for shard in np.unique(shards).tolist():
        stream_id = int(dataset.stream_per_shard[shard])
        stream = dataset.streams[stream_id]
        file = os.path.join(
            stream.local, stream.split, dataset.shards[shard].file_pairs[0][0].basename
        )
        told.append(
            f"{', '.join(map(str, samples[shards == shard].tolist()))} (stream {stream_id}, {file})"
        )
    return f"sample{'s' if len(samples) > 1 else ''} " + "; ".join(told)


def collate_name(collate: Callable) -> str:
    """Name a collate function in a message."""
    while isinstance(collate, partial):
        collate = collate.func
    return getattr(collate, "__qualname__", type(collate).__qualname__)


def collate_fault(collate: Callable, error: Exception, where: str) -> str:
    """Describe what a collate function raised, on which samples and rank, in one sentence."""
    said = " ".join(str(error).split())
    name, kind = collate_name(collate), type(error).__name__
    return f"collate function {name!r} raised {kind} on {here()} for {where}: {said}"
