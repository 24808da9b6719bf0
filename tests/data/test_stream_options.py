"""Streaming's own options under teaching: remote shards, small caches, replication, subclasses of
other data sets.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from corpora import write_ids
from loaders import ids_data
from streaming import StreamingDataset
from taught import make_loader, run_epochs
from taught_ranks import run_ranks

from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_limit", [None, "16kb"])
@pytest.mark.parametrize("predownload", [None, 3])
def test_remote_shards_and_small_caches(tmp_path, workers, cache_limit, predownload):
    """The same lessons from a remote, through a cache that holds a few shards only."""
    remote = write_ids(tmp_path / "remote", 400)
    data = {"batch_size": 4, "shuffle": True, "num_canonical_nodes": 1, "window": 8, "gap": 2}
    expected = run_epochs(make_loader(data | {"local": remote}, {}, {}))
    streamed = data | {
        "remote": remote,
        "local": str(tmp_path / "local"),
        "predownload": predownload,
    }
    loader = make_loader(streamed | {"cache_limit": cache_limit}, {"num_workers": workers}, {})
    assert run_epochs(loader) == expected
    shards = list((tmp_path / "local").glob("*.mds"))
    assert len(shards) < 26 if cache_limit else len(shards) == len(list(Path(remote).glob("*.mds")))


def test_plain_through_a_small_cache(tmp_path):
    remote = write_ids(tmp_path / "remote", 400)
    data = {"batch_size": 4, "shuffle": True, "num_canonical_nodes": 1}
    expected = [sample["id"] for sample in StreamingDataset(local=remote, **data)]
    dataset = TeachingDataset(
        remote=remote, local=str(tmp_path / "local"), cache_limit="16kb", **data
    )
    loader = TeachingDataLoader(dataset, batch_size=4, num_workers=2)
    assert [i for batch in loader for i in batch["id"].tolist()] == expected


def test_a_shard_that_is_gone_is_an_error_with_its_name(tmp_path):
    remote = Path(write_ids(tmp_path / "remote", 200))
    lost = sorted(remote.glob("*.mds"))[3]
    lost.unlink()
    data = {
        "remote": str(remote),
        "local": str(tmp_path / "local"),
        "batch_size": 4,
        "download_retry": 1,
    }
    loader = make_loader(data | {"window": 4, "num_canonical_nodes": 1}, {"num_workers": 2}, {})
    with pytest.raises(Exception, match=lost.name):
        run_epochs(loader)


class Shouting(StreamingDataset):
    """Somebody's data set with an argument and a ``__getitem__`` of its own."""

    def __init__(self, *, loud: int, **kwargs):
        super().__init__(**kwargs)
        self.loud = loud

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample | {"loud": sample["id"] * self.loud}


class TeachingShouting(TeachingDataset, Shouting):
    """Both."""


@pytest.mark.parametrize("taught", [False, True])
def test_subclass_of_another_dataset(tmp_path, taught):
    folder = write_ids(tmp_path / "data", 64)
    dataset = TeachingShouting(local=folder, batch_size=4, window=4, loud=3, num_canonical_nodes=1)
    loader = make_loader({"local": folder, "batch_size": 4}, {}, {})
    ours = TeachingDataLoader(dataset, batch_size=4, num_workers=1)
    ours.attach(loader.teacher if taught else None)
    for batch in ours:
        ours.teach(lambda b: b["loud"].float())
        assert torch.equal(batch["loud"], batch["id"] * 3)


@pytest.mark.slow
def test_replicated_ranks_see_the_same(tmp_path):
    data = ids_data(tmp_path, 240, batch_size=8, shuffle=True, window=5, gap=1)
    alone = run_epochs(make_loader(data, {}, {"select": "hard", "keep": 0.4}), 2)
    spec = {
        "data": data | {"replication": 2},
        "loader": {"num_workers": 1},
        "teacher": {"select": "hard", "keep": 0.4},
        "epochs": 2,
    }
    logs = run_ranks(tmp_path, 2, spec)
    assert logs[0] == logs[1] == json.loads(json.dumps(alone))


@pytest.mark.alone
def test_nothing_is_left_in_shared_memory_but_streamings_own(tmp_path):
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    data = ids_data(tmp_path, 64, window=4)
    loader = make_loader(data, {"num_workers": 2}, {})
    run_epochs(loader)
    left = set(os.listdir("/dev/shm")) - before if os.path.isdir("/dev/shm") else set()
    assert not [name for name in left if "attent" in name or name.startswith("torch")]
