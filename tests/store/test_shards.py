"""Shards fetched ahead: each once, none that is not needed, and none read unchecked.

Oracles: a data set that notes what it is asked for, and requests counted at the server, of a taught
run and of stock Streaming.
"""

import shutil
import threading

import numpy as np
import pytest
from corpora import write_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from store_proxy import StoreProxy
from store_ranks import nodes_are_possible, run_nodes
from stores import SAMPLES, opened, taught_run, use_s3, write_buckets
from streaming.base.dataset import _ShardState
from taught import make_loader, run_epochs

from attent_stream import TeachingDataset
from attent_stream.base.errors import CorruptError
from attent_stream.store import shards
from attent_stream.store.shards import ShardFetcher

SHARD = 8  # samples of a shard


class Shared:
    def __init__(self, values):
        self._values = values

    def numpy(self):
        return self._values

    def __getitem__(self, index):
        return self._values[index]


class Slow:
    """Four shards, each of whose preparation waits to be let go on."""

    def __init__(self):
        self.streams, self.num_shards = [], 4
        self.sample_offset_per_shard = np.arange(4) * SHARD
        self._shard_states = Shared(np.full(4, int(_ShardState.REMOTE)))
        self.asked, self.begun, self.go_on = [], threading.Event(), threading.Event()

    def prepare_shard(self, shard, blocking):
        self.asked.append((shard, blocking))
        self.begun.set()
        assert self.go_on.wait(60)


class Idle(ShardFetcher):
    """One whose thread does nothing."""

    def _run(self):
        pass


def closing(fetcher: ShardFetcher) -> threading.Thread:
    thread = threading.Thread(target=fetcher.close, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("worker", [True, False])
def test_closed_in_the_middle_of_a_shard(monkeypatch, worker):
    """A worker that ends takes its threads with it: the shard that one is at is finished first, and
    no other begun.
    """
    monkeypatch.setattr(shards, "get_worker_info", lambda: object() if worker else None)
    data = Slow()
    fetcher = ShardFetcher(data, predownload=4 * SHARD)
    fetcher.expect(np.arange(4 * SHARD))
    assert data.begun.wait(60)
    thread = closing(fetcher)
    thread.join(0.2 if worker else 60)
    assert thread.is_alive() == worker
    data.go_on.set()
    thread.join(60)
    fetcher._thread.join(60)
    assert not thread.is_alive() and not fetcher._thread.is_alive()
    assert data.asked == [(0, False)]


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4 * SHARD - 1), max_size=60),
    predownload=st.integers(1, 40),
    counts=st.lists(st.integers(1, 9), min_size=60, max_size=60),
    seed=st.integers(0, 9),
)
def test_shards_ahead_are_handed_over_in_order(ids, predownload, counts, seed):
    """Oracle: a loop over the samples. The thread does nothing here."""
    data, rng = Slow(), np.random.default_rng(seed)
    data.prepare_shard = lambda shard, blocking: None
    states = rng.choice([int(_ShardState.REMOTE), int(_ShardState.LOCAL)], 4)
    data._shard_states = Shared(states)
    fetcher = Idle(data, predownload)
    fetcher._touched[:] = rng.random(4) < 0.5
    touched, read, looked = fetcher._touched.copy(), 0, 0
    wanted: list[int] = []
    fetcher.expect(np.array(ids, np.int64))
    for count in counts:
        horizon = min(len(ids), read + predownload)
        assert looked <= fetcher._looked <= horizon
        late = horizon - fetcher._looked
        assert late < max(1, predownload // 4) and (not late or horizon < len(ids))
        for one in ids[looked : fetcher._looked]:
            shard = one // SHARD
            if not (states[shard] == _ShardState.LOCAL and touched[shard] or shard in wanted):
                wanted.append(shard)
        looked = fetcher._looked
        assert list(fetcher._wanted) == wanted
        touched = fetcher._touched.copy()
        read += count
        fetcher.advance(count)
    assert looked == len(ids)


def cut_copy(source, folder, name="shard.00001.mds"):
    shutil.copytree(source, folder)
    with open(folder / name, "r+b") as file:
        file.truncate(99)
    return folder


@pytest.mark.parametrize("taught", [False, True])
def test_a_reader_ahead_of_the_fetcher_reads_no_torn_file(
    tmp_path, buckets, proxy, monkeypatch, taught
):
    """The background thread never gets to a shard before the reader does."""
    monkeypatch.setattr(ShardFetcher, "_run", lambda self: None)
    cut = cut_copy(buckets / "bucket" / "plain", tmp_path / "cache")
    if taught:
        expected = taught_run(buckets / "bucket" / "plain", None, workers=0)
        assert taught_run(cut, "s3://bucket/plain", workers=0) == expected
    else:
        data = opened(tmp_path, "s3://bucket/plain")
        assert [int(sample["id"]) for sample in data] == list(range(SAMPLES))
    assert proxy.gets() == {("", "bucket/plain/shard.00001.mds"): 1}
    alone = TeachingDataset(
        local=str(cut_copy(buckets / "bucket" / "plain", tmp_path / "alone")), batch_size=4
    )
    with pytest.raises(
        CorruptError,
        match=r"shard 1 .*differs in size from the index; copy it again, or set a remote",
    ):
        list(alone)


def test_a_reader_looks_at_a_shard_once(tmp_path, buckets, monkeypatch):
    monkeypatch.setattr(ShardFetcher, "_run", lambda self: None)
    data, prepared = TeachingDataset(local=str(buckets / "bucket" / "plain"), batch_size=4), []
    monkeypatch.setattr(data, "prepare_shard", lambda shard, blocking: prepared.append(shard))
    assert [int(sample["id"]) for sample in data] == list(range(SAMPLES))
    assert prepared == list(range(data.num_shards))


@pytest.mark.parametrize(("nodes", "per_node"), [(1, 2), (2, 1)])
def test_each_shard_is_got_once_by_one_node(tmp_path, monkeypatch, nodes, per_node):
    if nodes > 1 and not nodes_are_possible():
        pytest.skip("a mount namespace with a tmpfs of its own is not allowed here: no second node")
    proxy = StoreProxy(write_buckets(tmp_path / "store"))
    try:
        use_s3(monkeypatch, proxy.url)
        read = run_nodes(tmp_path, nodes, per_node)
        gets = proxy.gets()
    finally:
        proxy.stop()
    shards = {
        f"bucket/plain/{path.name}"
        for path in (tmp_path / "store" / "bucket" / "plain").glob("*.mds")
    }
    by_kind = {}
    for kind in ("stock", "taught"):
        mine = {(node, key): count for (node, key), count in gets.items() if node.startswith(kind)}
        assert {key for _, key in mine} == shards
        assert set(mine.values()) == {1}, kind  # no node asks twice
        by_kind[kind] = sorted((node.removeprefix(kind), key) for node, key in mine)
    # Which node gets which shard is as in stock; one that lies across the border of two nodes'
    # samples is got by both.
    assert by_kind["taught"] == by_kind["stock"]
    assert len(by_kind["taught"]) <= len(shards) + nodes - 1
    print(
        f"nodes {nodes}: {len(shards)} shards, GETs stock {len(by_kind['stock'])}, taught "
        f"{len(by_kind['taught'])}"
    )
    assert sorted(i for rank in read for i in rank["stock"]) == list(range(SAMPLES))
    seen = [rank["taught"] for rank in read]
    assert (
        len({len(log["lessons"]) for log in seen}) == 1
        and len({len(log["scored"]) for log in seen}) == 1
    )


@pytest.mark.parametrize("select", ["hard", "random"])
@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_dropped_samples_alone_are_never_got(tmp_path, monkeypatch, select, workers):
    """Windows that are chosen without reading their candidates: by the ledger, or at random."""
    write_ids(tmp_path / "store" / "bucket" / "ids", 320, per_shard=8)
    proxy = StoreProxy(tmp_path / "store")
    try:
        use_s3(monkeypatch, proxy.url)
        data = {
            "remote": "s3://bucket/ids",
            "local": str(tmp_path / "cache"),
            "batch_size": 4,
            "num_canonical_nodes": 1,
        }
        data |= {"window": 16, "gap": 2, "shuffle": False, "predownload": 16}
        teacher = {"select": select, "keep": 0.25, "interval": "9ep", "ledger": 320}
        loader = make_loader(data, {"num_workers": workers}, teacher)
        loader.teacher.scoring = False
        spanner, ids = loader.dataset.spanner, np.arange(320)
        shard_of = np.array([spanner[int(i)][0] for i in ids])
        loader.teacher.remember(ids, (shard_of % 4 == 1) + 0.5 + ids / 1e4, 0.0)
        log = run_epochs(loader, 1)
        gets = {
            key.rsplit("/", 1)[1]: count
            for (_, key), count in proxy.gets().items()
            if key.endswith(".mds")
        }
    finally:
        proxy.stop()
    assert not log["scored"]
    needed = {f"shard.{shard_of[i]:05}.mds" for batch in log["lessons"] for i in batch}
    assert set(gets) == needed and set(gets.values()) == {1}
    if select == "hard":
        assert len(needed) < loader.dataset.num_shards * 0.7


@pytest.mark.parametrize("seed", [1, 3])
def test_a_worker_that_ends_leaves_no_shard_half_fetched(tmp_path, monkeypatch, seed):
    """It may be fetching, ahead, what another will read: who would wait until that claim is too
    old, and get it again. (With these seeds both happened, when the thread that fetches ended with
    its worker.)
    """
    write_ids(tmp_path / "store" / "bucket" / "ids", 320, per_shard=8)
    proxy = StoreProxy(tmp_path / "store")
    try:
        use_s3(monkeypatch, proxy.url)
        proxy.faults({"kind": "delay", "seconds": 0.15, "match": r"\.mds"})
        data = {
            "remote": "s3://bucket/ids",
            "local": str(tmp_path / "cache"),
            "batch_size": 4,
            "num_canonical_nodes": 1,
        }
        data |= {"window": 16, "gap": 2, "shuffle": False, "predownload": 16, "download_timeout": 3}
        teacher = {"select": "random", "keep": 0.25, "interval": "9ep", "ledger": 320, "seed": seed}
        log = run_epochs(make_loader(data, {"num_workers": 2}, teacher), 1)
        gets = proxy.gets()
    finally:
        proxy.stop()
    assert len(log["lessons"]) == 20 and set(gets.values()) == {1}
