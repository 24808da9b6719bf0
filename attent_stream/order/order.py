"""The epoch's order: every sample id in the sequence in which it is read, as rows; loader workers
never see it.

Either Streaming's own, built by its ``generate_work`` once a node and shared between the node's
ranks, or, for corpora too large for that, one that every rank computes where it looks at it
(``lazy_order.py``).
"""

import logging
import mmap
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from streaming.base.batching import generate_work
from streaming.base.world import World
from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.base.node_memory import mapped, mapping, node_file, node_path
from attent_stream.order.lazy_order import lazy_order
from attent_stream.window.layout import STRIPED, Layout, canonical_slots, rank_slots

SHARING = "the sharing of an epoch's order"  # what the ranks do together where an epoch begins


log = logging.getLogger(__name__)

AUTO, LAZY, STREAMING = "auto", "lazy", "streaming"
ORDERS = (AUTO, LAZY, STREAMING)
# Samples an epoch from which `auto` is lazy: Streaming's own order takes 4.5 GB and 42 CPU-seconds
# there
LAZY_FROM = 100_000_000


class Order(Protocol):
    """One epoch's order.

    Attributes:
        kind: ``STREAMING`` or ``LAZY``.
        epoch: Which epoch.
        full: How many rows at the front have a sample for every rank and slot.
        layout: Where slots go now.
        origin: Layout in which the rows were laid out (differs from ``layout`` only after a resume
            on a number of nodes that does not divide the canonical ones).
        stream_starts: First sample id of each stream, shape (num_streams,).
    """

    kind: str
    epoch: int
    layout: Layout
    origin: Layout
    stream_starts: NDArray[np.int64]

    @property
    def full(self) -> int:
        """See above."""

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """Sample ids of rows ``[begin, end)`` in canonical slot order, int64 of shape (end - begin,
        row_size).
        """

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """The part of canonical rows ``(n, row_size)`` that ``rank`` reads, shape (n,
        batch_size).
        """

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """What ``rank`` reads after the full rows: one array of ids a step, each of 1 to batch_size
        ids.
        """


@dataclass(frozen=True, kw_only=True)
class StreamingOrder:
    """One epoch's order as Streaming made it.

    Args:
        epoch: Which epoch.
        rows: Sample ids in reading order (node, rank, sample), integer array of shape (rows,
            row_size); -1 where a rank has no sample. Only rows at the end hold any.
        full: How many rows at the front have no -1.
        layout: Where slots go now.
        origin: Layout in which Streaming built the rows (see ``Order``).
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
        """Sample ids of rows ``[begin, end)`` in canonical slot order, int64 of shape (end - begin,
        row_size).
        """
        if not 0 <= begin <= end <= self.full:
            raise IndexError(
                f"rows [{begin}, {end}) are not among the {self.full} full rows of epoch "
                f"{self.epoch}"
            )
        ids = np.empty((end - begin, self.layout.row_size), np.int64)
        ids[:, canonical_slots(self.origin)] = self.rows[begin:end]
        return ids

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """The part of canonical rows ``(n, row_size)`` that ``rank`` reads, shape (n,
        batch_size).
        """
        return ids[:, rank_slots(self.layout, self.origin, rank)]

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """What ``rank`` reads after the full rows: one array of ids a step, each of 1 to batch_size
        ids.
        """
        size = self.layout.batch_size
        part = self.rows[self.full :, rank * size : (rank + 1) * size]
        return [np.asarray(row[row >= 0], np.int64) for row in part if (row >= 0).any()]


def generate_rows(dataset, world: World, epoch: int) -> NDArray[np.int64]:
    """Streaming's whole epoch as rows in reading order.

    Args:
        dataset: A StreamingDataset whose canonical nodes are set.
        world: Nodes and ranks, with one worker a rank: batches do not depend on the number of
            workers.
        epoch: Which epoch.

    Returns:
        int64 array of shape (rows, row_size), -1 where a rank has no sample.
    """
    work = generate_work(dataset.batching_method, dataset, world, epoch, 0)
    return work.transpose(3, 2, 0, 1, 4).reshape(work.shape[3], -1)


def layouts(dataset, world: World) -> tuple[Layout, Layout]:
    """The layout of this world, and the one in which Streaming lays out the rows (see ``Order``).

    Raises:
        ValueError: The global batch cannot be shared out evenly to as many ranks as at the first
            start.
    """
    initial = dataset.initial_physical_nodes or world.num_nodes
    canonical = dataset.num_canonical_nodes
    common = {
        "canonical_nodes": canonical,
        "initial_nodes": initial,
        "batching": dataset.batching_method,
    }
    now = Layout(
        nodes=world.num_nodes,
        ranks_per_node=world.ranks_per_node,
        batch_size=dataset.batch_size,
        **common,
    )
    divides = canonical % world.num_nodes == 0 or world.num_nodes % canonical == 0
    if dataset.partition_algo != "relaxed" or divides or dataset.batching_method not in STRIPED:
        return now, now
    # Streaming's relaxed partitioning falls back to the first start's nodes, with this start's
    # ranks per node.
    batch, rest = divmod(now.row_size, initial * world.ranks_per_node)
    if rest:
        raise ValueError(
            f"expected a global batch that the {initial * world.ranks_per_node} ranks of the first "
            f"start divide, got {now.row_size}"
        )
    return now, Layout(
        nodes=initial, ranks_per_node=world.ranks_per_node, batch_size=batch, **common
    )


def order_kind(asked: str, epoch_size: int) -> str:
    """Which order an epoch of so many samples gets, ``LAZY`` or ``STREAMING``, where ``asked`` is
    one of ``ORDERS``.
    """
    return asked if asked != AUTO else LAZY if epoch_size >= LAZY_FROM else STREAMING


def check_same_kind(saved: str, now: str) -> None:
    """Refuse to go on in the middle of an epoch of the other order.

    Raises:
        ValueError: Naming both.
    """
    if saved != now:
        raise ValueError(
            f"the checkpoint stands within an epoch of order: {saved}, this data set has order: "
            f"{now}: other samples lie behind it; "
            f"set order={saved!r}, or start at an epoch's beginning"
        )


def open_order(dataset, world: World, local_leader: bool, ranks_per_node: int, epoch: int) -> Order:
    """The data set's order for an epoch: computed as it is read, or built on the node's leader and
    shared with its others.

    Every rank of the job must call this at the same time: for Streaming's order, it holds two
    barriers where a node has several ranks.

    Raises:
        AttentError: Several ranks, but torch.distributed is not initialised.
    """
    now, origin = layouts(dataset, world)
    if order_kind(dataset.order, dataset.epoch_size) == LAZY:
        return lazy_order(dataset, now, origin, epoch)
    if ranks_per_node == 1:
        rows = _compact(generate_rows(dataset, world, epoch), dataset.num_samples)
    else:
        rows = _shared_rows(dataset, world, local_leader, epoch)
    partial = np.flatnonzero(rows.min(axis=1) < 0) if len(rows) else np.empty(0, np.int64)
    full = int(partial[0]) if len(partial) else len(rows)
    starts = np.asarray(dataset.sample_offset_per_stream, np.int64)
    return StreamingOrder(
        epoch=epoch, rows=rows, full=full, layout=now, origin=origin, stream_starts=starts
    )


def _compact(rows: NDArray[np.int64], num_samples: int) -> NDArray[np.integer]:
    return rows.astype(np.int32) if num_samples < 2**31 else rows


def _shared_rows(dataset, world: World, local_leader: bool, epoch: int) -> NDArray[np.integer]:
    if not (dist.is_available() and dist.is_initialized()):
        raise AttentError(
            "a taught epoch on several ranks needs torch.distributed, which is not initialised: "
            "build the Trainer "
            "(or call torch.distributed.init_process_group) before iterating the loader"
        )
    path = node_path(f"{dataset.shared_prefix:06}_attent_order")
    if not local_leader:
        with mapping(SHARING):
            memory = mapped(path)
        return _unpacked(memory)
    rows = np.ascontiguousarray(_compact(generate_rows(dataset, world, epoch), dataset.num_samples))
    with node_file(path) as file:
        np.array([rows.shape[0], rows.shape[1], rows.itemsize], np.int64).tofile(file)
        rows.tofile(file)
        file.flush()
        del rows
        with mapping(SHARING):
            memory = mapped(path)
        return _unpacked(memory)


def _unpacked(mapped: mmap.mmap) -> NDArray[np.integer]:
    count, size, itemsize = np.frombuffer(mapped, np.int64, 3)
    dtype = np.int32 if itemsize == 4 else np.int64
    return np.frombuffer(mapped, dtype, count * size, 24).reshape(count, size)
