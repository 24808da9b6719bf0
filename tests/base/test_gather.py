"""Values of all ranks, and sums over them. Oracle: collectives over a list."""

import numpy as np
import pytest
import torch

from attent_stream.base import gather
from attent_stream.base.errors import AttentError
from attent_stream.base.gather import ALONE, RankGroup, first_fault, gather_ranks, summed


@pytest.mark.parametrize(("ranks", "replication"), [(1, 1), (3, 1), (2, 2), (1, 4)])
def test_values_without_copies(monkeypatch, ranks, replication):
    values = [torch.full((2, 5), float(rank)) for rank in range(ranks)]
    monkeypatch.setattr(gather.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: ranks * replication)

    def all_gather(out, mine):
        torch.cat([one for one in values for _ in range(replication)], out=out)

    monkeypatch.setattr(gather.dist, "all_gather_into_tensor", all_gather)
    got = gather_ranks(values[0], ranks=ranks, replication=replication)
    assert np.array_equal(got, torch.stack(values).numpy()) and got.flags.c_contiguous


@pytest.mark.parametrize(("ranks", "replication"), [(1, 1), (3, 1), (2, 2)])
def test_some_values_are_picked(monkeypatch, ranks, replication):
    values = torch.arange(ranks * 2 * 4 * 3).reshape(ranks, 2, 4, 3)
    monkeypatch.setattr(gather.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: ranks * replication)
    monkeypatch.setattr(
        gather.dist,
        "all_gather_into_tensor",
        lambda out, mine: out.copy_(values.repeat_interleave(replication, 0).flatten(0, 1)),
    )
    rank, index = np.array([0, ranks - 1, 0]), np.array([3, 0, 1])
    got = gather_ranks(values[0], ranks=ranks, replication=replication, pick=(rank, index))
    assert got.flags.c_contiguous and got.shape == (2, 3, 3)
    for place in range(3):
        assert np.array_equal(got[:, place], values[rank[place], :, index[place]].numpy())


def test_another_number_of_ranks_is_refused():
    with pytest.raises(AttentError, match="to connect 4 ranks, got 1: build the Trainer"):
        gather_ranks(torch.zeros(1), ranks=2, replication=2)


def test_the_first_fault_counts(monkeypatch):
    for faults, first in (([None, "b", "c"], "b"), ([None, None], None), (["", "b"], "")):
        monkeypatch.setattr(gather.composer_dist, "all_gather_object", lambda _, f=faults: f)
        assert first_fault(None) == first


def test_steps_are_summed():
    def steps():
        first = yield np.arange(3)
        second = yield first + 1
        return first.tolist(), second.tolist()

    class Twice(RankGroup):
        def total(self, values):
            return 2 * values

    assert summed(steps(), Twice()) == ([0, 2, 4], [2, 6, 10])
    assert summed(steps(), ALONE) == ([0, 1, 2], [1, 2, 3])


def test_one_rank_adds_nothing(monkeypatch):
    values = np.arange(4)
    assert ALONE.total(values) is values
    assert RankGroup.of_world(torch.clone) == ALONE
    monkeypatch.setattr(gather.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(gather.dist, "get_rank", lambda: 2)
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(gather.dist, "all_reduce", lambda tensor: tensor.mul_(3))
    group = RankGroup.of_world(torch.clone)
    assert (group.rank, group.ranks) == (2, 3)
    assert group.total(values).tolist() == [0, 3, 6, 9] and values.tolist() == [0, 1, 2, 3]
