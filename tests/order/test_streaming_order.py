"""Streaming's order as windows and tails of ranks, against the rows themselves."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from orders import jobs
from seeded import seeded
from streaming.base.world import World

from attent_stream.base.errors import AttentError
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import compact_rows, shared_rows, streaming_order


@pytest.mark.filterwarnings("ignore")
@seeded(60)
@given(job=jobs(), draw=st.data())
def test_ranks_read_their_rows(job, draw):
    data, world, epoch = job
    try:
        now, origin = layouts(data, world)
        rows = compact_rows(data, world, epoch)
    except (ValueError, IndexError, ZeroDivisionError):
        assume(False)  # Streaming refuses these settings
    order = streaming_order(data, now, origin, epoch, rows)
    assert rows.dtype == np.int32
    full = (rows >= 0).all(axis=1)
    assert full[: order.full].all() and not full[order.full : order.full + 1].any()
    begin = draw.draw(st.integers(0, order.full))
    end = draw.draw(st.integers(begin, order.full))
    per_rank = rows.reshape(len(rows), now.ranks, now.batch_size)
    for rank in range(now.ranks):
        ids = order.of_rank(order.window(begin, end), rank)
        assert np.array_equal(ids, per_rank[begin:end, rank])
        tail = [row[row >= 0].tolist() for row in per_rank[order.full :, rank]]
        assert [ids.tolist() for ids in order.tail(rank)] == [ids for ids in tail if ids]
    with pytest.raises(IndexError, match=f"the {order.full} full rows of epoch {epoch}"):
        order.window(begin, order.full + 1)


def test_sharing_needs_torch_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    with pytest.raises(AttentError, match="torch.distributed, which is not initialized"):
        shared_rows(None, World(1, 2, 1, 0), True, 0)
