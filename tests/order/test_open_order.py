"""Which order a data set gets, and its layouts."""

from types import SimpleNamespace

import pytest
from corpora import write_ids
from hypothesis import given
from orders import jobs
from seeded import seeded
from streaming.base.world import World

from attent_stream import TeachingDataset
from attent_stream.order.lazy_order import LazyOrder
from attent_stream.order.open_order import (
    LAZY_FROM,
    check_same_kind,
    layouts,
    open_order,
    order_kind,
)
from attent_stream.order.streaming_order import StreamingOrder
from attent_stream.window.layout import Layout


def test_which_order_and_what_is_told(tmp_path, caplog):
    assert [order_kind(asked, LAZY_FROM) for asked in ("auto", "lazy", "streaming")] == [
        "lazy",
        "lazy",
        "streaming",
    ]
    assert order_kind("auto", LAZY_FROM - 1) == "streaming"
    folder = write_ids(tmp_path / "data", 20)
    assert TeachingDataset(local=folder, batch_size=4).order == "streaming" and not caplog.records
    TeachingDataset(local=folder, batch_size=4, order="lazy")
    assert [record.message.split(" (")[0] for record in caplog.records] == ["order: lazy"]
    with pytest.raises(ValueError, match="order must be one of auto, lazy, streaming, got 'stock'"):
        TeachingDataset(local=folder, batch_size=4, order="stock")


@seeded(60)
@given(job=jobs())
def test_layouts_have_the_same_rows(job):
    """After a resume on other nodes, rows are made for the first start's and as large as now."""
    data, world, _ = job
    try:
        now, origin = layouts(data, world)
    except ValueError as error:
        assert "ranks of the first start divide" in str(error)
        return
    assert now.row_size == origin.row_size
    assert (now.nodes, now.ranks_per_node) == (world.num_nodes, world.ranks_per_node)
    canonical, nodes = data.num_canonical_nodes, world.num_nodes
    if origin != now:
        assert data.partition_algo == "relaxed" and canonical % nodes and nodes % canonical
        assert origin.nodes == data.initial_physical_nodes or origin.nodes == nodes


def test_the_first_starts_ranks_must_divide_the_batch():
    data = SimpleNamespace(
        initial_physical_nodes=4,
        num_canonical_nodes=4,
        batch_size=5,
        batching_method="random",
        partition_algo="relaxed",
    )
    with pytest.raises(ValueError, match="that the 4 ranks of the first start divide, got 15"):
        layouts(data, World(3, 1, 1, 0))
    data.batch_size = 4
    common = {"ranks_per_node": 1, "canonical_nodes": 4, "initial_nodes": 4, "batching": "random"}
    expected = Layout(nodes=3, batch_size=4, **common), Layout(nodes=4, batch_size=3, **common)
    assert layouts(data, World(3, 1, 1, 0)) == expected


def test_an_order_is_opened_by_its_kind(tmp_path):
    folder = write_ids(tmp_path / "data", 20)
    data = TeachingDataset(local=folder, batch_size=4, num_canonical_nodes=1)
    world = World(1, 1, 1, 0)
    for kind, made in (("streaming", StreamingOrder), ("lazy", LazyOrder)):
        data.order = kind
        order = open_order(data, world, True, 1, 2)
        assert type(order) is made and (order.kind, order.epoch, order.full) == (kind, 2, 5)
        assert order.window(0, 5).tolist() == [[*range(n, n + 4)] for n in range(0, 20, 4)]


def test_a_checkpoint_of_the_other_kind_is_refused():
    check_same_kind("lazy", "lazy")
    with pytest.raises(ValueError, match="order: lazy, this .* order: streaming; set order='lazy'"):
        check_same_kind("lazy", "streaming")
