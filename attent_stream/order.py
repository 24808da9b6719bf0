"""The epoch's order: every sample id in the sequence in which Streaming itself would yield it, as rows.

Built by Streaming's own ``generate_work`` once a node and shared between the node's ranks; loader workers never see it.
"""

import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from streaming.base.batching import generate_work
from streaming.base.world import World
from torch import distributed as dist

from attent_stream.errors import AttentError
from attent_stream.plan import Layout, canonical_slots


@dataclass(frozen=True, kw_only=True)
class Order:
    """One epoch's order.

    Args:
        epoch: Which epoch.
        rows: Sample ids in reading order (node, rank, sample), integer array of shape (rows, row_size); -1 where a rank
            has no sample. Only rows at the end hold any.
        full: How many rows at the front have no -1.
        layout: Where slots go now.
        origin: Layout in which Streaming built the rows (differs from ``layout`` only after a resume on a number of
            nodes that does not divide the canonical ones).
        stream_starts: First sample id of each stream, shape (num_streams,).
    """

    epoch: int
    rows: NDArray[np.integer]
    full: int
    layout: Layout
    origin: Layout
    stream_starts: NDArray[np.int64]

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """Sample ids of rows ``[begin, end)`` in canonical slot order, int64 of shape (end - begin, row_size)."""
        if not 0 <= begin <= end <= self.full:
            raise IndexError(f"rows [{begin}, {end}) are not among the {self.full} full rows of epoch {self.epoch}")
        ids = np.empty((end - begin, self.layout.row_size), np.int64)
        ids[:, canonical_slots(self.origin)] = self.rows[begin:end]
        return ids

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """The part of canonical rows ``(n, row_size)`` that ``rank`` reads, shape (n, batch_size)."""
        slots = canonical_slots(self.origin).reshape(self.layout.ranks, self.layout.batch_size)[rank]
        return ids[:, slots]

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """What ``rank`` reads after the full rows: one array of ids a step, each of 1 to batch_size ids."""
        size = self.layout.batch_size
        part = self.rows[self.full :, rank * size : (rank + 1) * size]
        return [np.asarray(row[row >= 0], np.int64) for row in part if (row >= 0).any()]


def generate_rows(dataset, world: World, epoch: int) -> NDArray[np.int64]:
    """Streaming's whole epoch as rows in reading order.

    Args:
        dataset: A StreamingDataset whose canonical nodes are set.
        world: Nodes and ranks, with one worker a rank: batches do not depend on the number of workers.
        epoch: Which epoch.

    Returns:
        int64 array of shape (rows, row_size), -1 where a rank has no sample.
    """
    work = generate_work(dataset.batching_method, dataset, world, epoch, 0)
    return work.transpose(3, 2, 0, 1, 4).reshape(work.shape[3], -1)


def layouts(dataset, world: World) -> tuple[Layout, Layout]:
    """The layout of this world, and the one in which Streaming lays out the rows (see ``Order``)."""
    initial = dataset.initial_physical_nodes or world.num_nodes
    canonical = dataset.num_canonical_nodes
    common = {"canonical_nodes": canonical, "initial_nodes": initial, "batching": dataset.batching_method}
    now = Layout(nodes=world.num_nodes, ranks_per_node=world.ranks_per_node, batch_size=dataset.batch_size, **common)
    divides = canonical % world.num_nodes == 0 or world.num_nodes % canonical == 0
    if dataset.partition_algo != "relaxed" or divides:
        return now, now
    # Streaming's relaxed partitioning falls back to the first start's nodes, with this start's ranks per node.
    batch = now.row_size // (initial * world.ranks_per_node)
    return now, Layout(nodes=initial, ranks_per_node=world.ranks_per_node, batch_size=batch, **common)


def open_order(dataset, world: World, local_leader: bool, ranks_per_node: int, epoch: int) -> Order:
    """Build the order on the node's leader, share it with the node's other ranks, and wrap it.

    Every rank of the job must call this at the same time: it holds two barriers where a node has several ranks.

    Raises:
        AttentError: Several ranks, but torch.distributed is not initialised.
    """
    if ranks_per_node == 1:
        rows = _compact(generate_rows(dataset, world, epoch), dataset.num_samples)
    else:
        rows = _shared_rows(dataset, world, local_leader, epoch)
    now, origin = layouts(dataset, world)
    partial = np.flatnonzero(rows.min(axis=1) < 0) if len(rows) else np.empty(0, np.int64)
    full = int(partial[0]) if len(partial) else len(rows)
    starts = np.asarray(dataset.sample_offset_per_stream, np.int64)
    return Order(epoch=epoch, rows=rows, full=full, layout=now, origin=origin, stream_starts=starts)


def _compact(rows: NDArray[np.int64], num_samples: int) -> NDArray[np.integer]:
    return rows.astype(np.int32) if num_samples < 2**31 else rows


def _shared_rows(dataset, world: World, local_leader: bool, epoch: int) -> NDArray[np.integer]:
    if not (dist.is_available() and dist.is_initialized()):
        raise AttentError(
            "a taught epoch on several ranks needs torch.distributed, which is not initialised: build the Trainer "
            "(or call torch.distributed.init_process_group) before iterating the loader"
        )
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    path = os.path.join(folder, f"{dataset.shared_prefix:06}_attent_order")
    if local_leader:
        rows = np.ascontiguousarray(_compact(generate_rows(dataset, world, epoch), dataset.num_samples))
        if os.path.exists(path):
            os.unlink(path)  # left by a killed run that held this prefix before us
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            np.array([rows.shape[0], rows.shape[1], rows.itemsize], np.int64).tofile(file)
            rows.tofile(file)
        del rows
    dist.barrier()
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    dist.barrier()
    if local_leader:
        os.unlink(path)  # the mappings keep the memory; nothing is left behind if the job is killed from here on
    count, size, itemsize = np.frombuffer(mapped, np.int64, 3)
    dtype = np.int32 if itemsize == 4 else np.int64
    return np.frombuffer(mapped, dtype, count * size, 24).reshape(count, size)
