"""Which ledger a data set gets, and that a node's ranks share one."""

import numpy as np
import pytest
from corpora import write_ids
from loaders import ids_data
from taught import make_loader, run_epochs
from taught_ranks import run_ranks

from attent_stream.memory.ledger import GroupLedger, SampleLedger
from attent_stream.memory.open_ledger import Request, open_ledger
from attent_stream.memory.remember import Remember


def request(dataset, settings, *, ages):
    return Request(settings=settings, dataset=dataset, ages=ages, local_rank=0, ranks_per_node=1)


def test_more_than_the_limit_is_kept_per_shard(tmp_path, caplog):
    data = ids_data(tmp_path, 300, window=8)
    dataset = make_loader(data, {}, {}).dataset
    ledger = open_ledger(request(dataset, Remember(limit=1000), ages=True))
    assert (
        isinstance(ledger, GroupLedger) and len(ledger.state_dict()["means"]) == dataset.num_shards
    )
    assert "takes 1240 bytes of a node, more than remember.limit of 1000" in caplog.text
    enough = open_ledger(request(dataset, Remember(limit="1kb"), ages=False))
    assert isinstance(enough, SampleLedger)


@pytest.mark.parametrize(("per", "count"), [("shard", None), ("stream", 1)])
def test_means_of_groups(tmp_path, per, count):
    data = ids_data(tmp_path, 100)
    dataset = make_loader(data, {}, {}).dataset
    ledger = open_ledger(request(dataset, Remember(per=per), ages=False))
    assert len(ledger.state_dict()["means"]) == (count or dataset.num_shards)


def test_an_unknown_kind_is_refused(tmp_path):
    data = ids_data(tmp_path, 100)
    with pytest.raises(ValueError, match="remember.per has no 'shards', did you mean 'shard'"):
        open_ledger(request(make_loader(data, {}, {}).dataset, Remember(per="shards"), ages=True))


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_share_one_ledger(tmp_path, world):
    """What one rank writes all choose by: they train on the lessons of one process."""
    data = {
        "local": write_ids(tmp_path / "data", 16 * 20),
        "shuffle": True,
        "num_canonical_nodes": 1,
        "window": 5,
        "gap": 1,
    }
    teacher = {"keep": 0.5, "interval": "2ep", "ledger": 16 * 20}
    one = make_loader(data | {"batch_size": 16}, {}, teacher)
    one.teacher.remember(np.arange(320), np.arange(320) % 7 / 7, 0.0)
    alone = run_epochs(one, 3)
    spec = {
        "data": data | {"batch_size": 16 // world},
        "loader": {},
        "teacher": teacher,
        "epochs": 3,
        "shared": 7,
    }
    for log in run_ranks(tmp_path, world, spec):
        assert log["choices"] == alone["choices"]
        assert log["shared"] == ["uint16", False]
    assert {by for _, _, by, _ in alone["choices"]} == {"scored", "remembered", "all"}
