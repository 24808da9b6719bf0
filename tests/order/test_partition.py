"""The partition against Streaming's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded
from streaming.base.partition.orig import get_partitions_orig

from attent_stream.order.partition import Partition


@pytest.mark.filterwarnings("ignore")
@seeded(300)
@given(
    samples=st.integers(1, 90),
    canonical=st.sampled_from([1, 2, 3, 4, 6, 12]),
    nodes=st.sampled_from([1, 2, 3, 4, 6, 12]),
    ranks=st.integers(1, 5),
)
def test_partition_is_streamings(samples, canonical, nodes, ranks):
    try:
        stock = get_partitions_orig(samples, canonical, nodes, ranks, 1, 1)
    except ValueError:
        return  # stock refuses, or cannot do them
    cut = Partition(samples=samples, canonical_nodes=canonical, nodes=nodes, ranks_per_node=ranks)
    # Of a node: sample by sample, rank by rank
    stock = stock.transpose(0, 3, 1, 2, 4).reshape(nodes, -1)
    assert stock.shape[1] == cut.per_node
    node, nth = np.meshgrid(np.arange(nodes), np.arange(cut.per_node), indexing="ij")
    assert np.array_equal(cut.positions(node, nth), stock)


def test_numbers_of_nodes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divide the number of nodes or the reverse, got 4 and 3"):
        Partition(samples=10, canonical_nodes=4, nodes=3, ranks_per_node=1)
