"""Choose and open a data set's order for an epoch."""

from dataclasses import replace

from streaming import StreamingDataset
from streaming.base.world import World

from attent_stream.order.lazy_order import lazy_order
from attent_stream.order.order import AUTO, LAZY, STREAMING, Order
from attent_stream.order.streaming_order import compact_rows, shared_rows, streaming_order
from attent_stream.window.layout import STRIPED, Layout

# Samples of an epoch from which `auto` is lazy: Streaming's order takes 4.5 GB and 42 CPU-seconds.
LAZY_FROM = 100_000_000


def order_kind(asked: str, epoch_size: int) -> str:
    """Resolve one of ``ORDERS`` to ``LAZY`` or ``STREAMING`` for an epoch of so many samples."""
    if asked != AUTO:
        return asked
    return LAZY if epoch_size >= LAZY_FROM else STREAMING


def check_same_kind(saved: str, now: str) -> None:
    """Raise ValueError if a checkpoint within an epoch has another kind of order."""
    if saved != now:
        raise ValueError(
            f"the checkpoint is within an epoch of order: {saved}, this data set has order: {now}; "
            f"set order={saved!r}, or start at the beginning of an epoch"
        )


def layouts(dataset: StreamingDataset, world: World) -> tuple[Layout, Layout]:
    """Return the layout of this world, and the layout in which Streaming makes the rows.

    Raises:
        ValueError: The ranks of the first start do not divide the global batch.
    """
    initial = dataset.initial_physical_nodes or world.num_nodes
    canonical, nodes = dataset.num_canonical_nodes, world.num_nodes
    now = Layout(
        nodes=nodes,
        ranks_per_node=world.ranks_per_node,
        batch_size=dataset.batch_size,
        canonical_nodes=canonical,
        initial_nodes=initial,
        batching=dataset.batching_method,
    )
    divides = canonical % nodes == 0 or nodes % canonical == 0
    if dataset.partition_algo != "relaxed" or divides or dataset.batching_method not in STRIPED:
        return now, now
    # Streaming's relaxed partitioning falls back to the nodes of the first start, with the current
    # ranks per node.
    ranks = initial * world.ranks_per_node
    batch, rest = divmod(now.row_size, ranks)
    if rest:
        raise ValueError(
            f"expected a global batch that the {ranks} ranks of the first start divide, got "
            f"{now.row_size}"
        )
    return now, replace(now, nodes=initial, batch_size=batch)


def open_order(
    dataset: StreamingDataset, world: World, local_leader: bool, ranks_per_node: int, epoch: int
) -> Order:
    """Open the data set's order for an epoch.

    All ranks of the job must call this together. If a node has several ranks, its leader builds
    Streaming's order and shares it, with two barriers.

    Args:
        dataset: A StreamingDataset with an attribute ``order``, one of ``ORDERS``.
        world: Nodes and ranks with one worker a rank.
        local_leader: Whether this rank is its node's leader.
        ranks_per_node: Ranks of the node, replicas included.
        epoch: The epoch's number.

    Raises:
        AttentError: The node has several ranks, but torch.distributed is not initialized.
    """
    now, origin = layouts(dataset, world)
    if order_kind(dataset.order, dataset.epoch_size) == LAZY:
        return lazy_order(dataset, now, origin, epoch)
    if ranks_per_node == 1:
        rows = compact_rows(dataset, world, epoch)
    else:
        rows = shared_rows(dataset, world, local_leader, epoch)
    return streaming_order(dataset, now, origin, epoch, rows)
