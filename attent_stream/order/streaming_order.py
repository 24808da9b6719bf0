"""Streaming's own order of an epoch, built once a node and shared between the node's ranks."""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset
from streaming.base.batching import generate_work
from streaming.base.world import World
from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.base.node_memory import mapped, mapping, node_file, node_path
from attent_stream.order.order import SHARING, STREAMING, check_window
from attent_stream.window.layout import Layout, canonical_slots, rank_slots


@dataclass(frozen=True, kw_only=True)
class StreamingOrder:
    """One epoch's order as Streaming made it; see ``Order``.

    Args:
        epoch: The epoch's number.
        rows: Sample ids in reading order (node, rank, sample), integers of shape (rows, row_size).
            Rows at the end have -1 where a rank has no sample.
        full: Number of rows at the front without a -1.
        layout: The current layout of slots.
        origin: The layout in which Streaming built the rows.
        stream_starts: First sample id of each stream, shape (num_streams,).
    """

    epoch: int
    rows: NDArray[np.integer]
    full: int
    layout: Layout
    origin: Layout
    stream_starts: NDArray[np.int64]
    kind = STREAMING

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """See ``Order``."""
        check_window(self, begin, end)
        ids = np.empty((end - begin, self.layout.row_size), np.int64)
        ids[:, canonical_slots(self.origin)] = self.rows[begin:end]
        return ids

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """See ``Order``."""
        return ids[:, rank_slots(self.layout, self.origin, rank)]

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """See ``Order``."""
        size = self.layout.batch_size
        rest = self.rows[self.full :, rank * size : (rank + 1) * size]
        return [np.asarray(row[row >= 0], np.int64) for row in rest if (row >= 0).any()]


def streaming_order(
    dataset: StreamingDataset, now: Layout, origin: Layout, epoch: int, rows: NDArray[np.integer]
) -> StreamingOrder:
    """Make the order of an epoch from its rows, as ``generate_rows`` returns them."""
    partial = np.flatnonzero(rows.min(axis=1) < 0) if len(rows) else np.empty(0, np.int64)
    full = int(partial[0]) if len(partial) else len(rows)
    starts = np.asarray(dataset.sample_offset_per_stream, np.int64)
    return StreamingOrder(
        epoch=epoch, rows=rows, full=full, layout=now, origin=origin, stream_starts=starts
    )


def generate_rows(dataset: StreamingDataset, world: World, epoch: int) -> NDArray[np.int64]:
    """Build Streaming's whole epoch as rows in reading order.

    Args:
        dataset: A data set whose canonical nodes are set.
        world: Nodes and ranks with one worker a rank; batches do not depend on the workers.
        epoch: The epoch's number.

    Returns:
        int64 of shape (rows, row_size), -1 where a rank has no sample.
    """
    work = generate_work(dataset.batching_method, dataset, world, epoch, 0)
    return work.transpose(3, 2, 0, 1, 4).reshape(work.shape[3], -1)


def compact_rows(dataset: StreamingDataset, world: World, epoch: int) -> NDArray[np.integer]:
    """Build the rows as int32 if all sample ids fit, else as int64."""
    rows = generate_rows(dataset, world, epoch)
    return rows.astype(np.int32) if dataset.num_samples < 2**31 else rows


def shared_rows(
    dataset: StreamingDataset, world: World, local_leader: bool, epoch: int
) -> NDArray[np.integer]:
    """Build the rows on the node's leader and map them on all its ranks.

    All ranks of the job must call it together.

    Raises:
        AttentError: torch.distributed is not initialized.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise AttentError(
            "a taught epoch on several ranks needs torch.distributed, which is not initialized: "
            "build the Trainer (or call torch.distributed.init_process_group) before iterating the "
            "loader"
        )
    path = node_path(f"{dataset.shared_prefix:06}_attent_order")
    if not local_leader:
        with mapping(SHARING):
            memory = mapped(path)
        return _unpacked(memory)
    rows = np.ascontiguousarray(compact_rows(dataset, world, epoch))
    with node_file(path) as file:
        np.array([rows.shape[0], rows.shape[1], rows.itemsize], np.int64).tofile(file)
        rows.tofile(file)
        file.flush()
        del rows
        with mapping(SHARING):
            memory = mapped(path)
        return _unpacked(memory)


def _unpacked(memory: mmap.mmap) -> NDArray[np.integer]:
    count, size, itemsize = np.frombuffer(memory, np.int64, 3)
    dtype = np.int32 if itemsize == 4 else np.int64
    rows: NDArray[Any] = np.frombuffer(memory, dtype, count * size, 24)
    return rows.reshape(count, size)
