"""The lazy order: as often each sample as in stock Streaming, wherever it is looked at. Oracles:
Streaming, brute force.
"""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from corpora import write_ids
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.partition.orig import get_partitions_orig
from streaming.base.sampling import get_sampling
from streaming.base.spanner import Spanner
from streaming.base.world import World
from taught import make_loader, run_epochs

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.order.lazy_order import lazy_order, lazy_steps
from attent_stream.order.order import LAZY_FROM, generate_rows, layouts, order_kind
from attent_stream.order.partition import Partition
from attent_stream.order.permutation import keyed, permuted
from attent_stream.order.stream_counts import partial_choice, shard_counts
from attent_stream.order.turns import Turns
from attent_stream.store.readers import hand_on, read_shards
from attent_stream.store.spans import SearchedSpanner
from attent_stream.window.layout import canonical_slots

_common = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


@settings(max_examples=150, **_common)
@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_permutations_are_bijective(size, key):
    places = permuted(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(places), np.arange(size))


def test_permutations_are_far_from_the_identity_and_from_each_other():
    """Mean displacement of a random permutation is n / 3, the correlation with another is of the
    size of n ** -0.5.
    """
    size = 1 << 20
    index = np.arange(size)
    one, two = (permuted(index, size, keyed(3, epoch)) for epoch in (0, 1))
    for places in (one, two, np.diff(one) % size):
        assert abs(np.abs(places - index[: len(places)]).mean() / size - 1 / 3) < 0.003
    for pair in ((one, index), (one, two), (one[1:], one[:-1])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 5 * size**-0.5
    large = permuted(np.arange(10**10 - 1000, 10**10), 10**10, keyed(1))
    assert len(np.unique(large)) == 1000 and large.min() >= 0 and large.max() < 10**10


@settings(max_examples=200, **_common)
@given(samples=st.integers(1, 300), data=st.data())
def test_partial_repeats_take_different_samples_in_ascending_sequence(samples, data):
    take = data.draw(st.integers(1, samples))
    key = np.full(take, data.draw(st.integers(0, 2**64 - 1)), np.uint64)
    chosen = partial_choice(np.arange(take), np.full(take, samples), np.full(take, take), key)
    assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < samples


def test_partial_repeats_are_fair():
    samples, take, draws = 10, 7, 20_000
    index, keys = np.tile(np.arange(take), draws), np.repeat(keyed(np.arange(draws)), take)
    full = np.ones(len(index), np.int64)
    share = (
        np.bincount(partial_choice(index, samples * full, take * full, keys), minlength=samples)
        / draws
    )
    assert abs(share - take / samples).max() < 0.02


@settings(max_examples=200, **_common)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    choose=st.integers(0, 700),
    granularity=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_shard_counts_are_streamings(sizes, choose, granularity, seed):
    sizes = np.array(sizes)
    stock = get_sampling(sizes, choose, granularity, seed, 0, False)
    assert np.array_equal(shard_counts(sizes, choose, granularity, seed), stock)
    shares = shard_counts(sizes, choose, granularity, seed, exact_picks=0)
    assert shares.sum() == choose and (abs(shares - choose * sizes / sizes.sum()) <= 1.000001).all()


@settings(max_examples=200, **_common)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    key=st.integers(0, 99),
    data=st.data(),
)
def test_turns(counts, key, data):
    turns = Turns(counts=tuple(counts), key=key)
    streams, places = turns.between(0, turns.total)
    for stream, count in enumerate(counts):
        assert places[streams == stream].tolist() == list(range(count))
    begin = data.draw(st.integers(0, turns.total))
    end = data.draw(st.integers(begin, turns.total))
    assert [part.tolist() for part in turns.between(begin, end)] == [
        streams[begin:end].tolist(),
        places[begin:end].tolist(),
    ]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, **_common)
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
    node, turn = np.meshgrid(np.arange(nodes), np.arange(cut.per_node), indexing="ij")
    assert np.array_equal(cut.places(node, turn), stock)


class Data(SimpleNamespace):
    """As much of a StreamingDataset as its order is made of; ``streams`` are given as (shard sizes,
    choose).
    """

    resample_streams = StreamingDataset.resample_streams

    def __init__(self, streams, **kwargs) -> None:
        shards = [len(sizes) for sizes, _ in streams]
        self.samples_per_shard = np.concatenate([np.array(sizes, np.int64) for sizes, _ in streams])
        self.sample_offset_per_shard = np.cumsum(self.samples_per_shard) - self.samples_per_shard
        self.shards_per_stream = np.array(shards)
        self.shard_offset_per_stream = np.cumsum(shards) - shards
        self.sample_offset_per_stream = self.sample_offset_per_shard[self.shard_offset_per_stream]
        self.num_streams, self.num_samples = len(streams), int(self.samples_per_shard.sum())
        self.epoch_size = sum(choose for _, choose in streams)
        self.streams = [
            SimpleNamespace(choose=choose, proportion=choose / self.epoch_size)
            for _, choose in streams
        ]
        super().__init__(**kwargs)
        self.epoch_seed_change = self.shuffle and self.sampling_method == "balanced"


@st.composite
def jobs(draw, *, shuffle=None):
    """A data set, a world and an epoch."""
    streams = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=9))
        weight = draw(st.sampled_from([1, 1, 2, 0.4, 2.3]))
        streams.append((sizes, max(1, int(weight * sum(sizes)))))
    data = Data(
        streams,
        shuffle=draw(st.booleans()) if shuffle is None else shuffle,
        shuffle_algo=draw(st.sampled_from(["py1e", "py1br", "py1s", "py2s", "naive"])),
        shuffle_seed=draw(st.integers(0, 50)),
        shuffle_block_size=draw(st.sampled_from([20, 100, 1 << 18])),
        num_canonical_nodes=draw(st.sampled_from([1, 2, 4, 6])),
        partition_algo=draw(st.sampled_from(["orig", "relaxed"])),
        initial_physical_nodes=draw(st.sampled_from([None, 1, 2])),
        batching_method=draw(
            st.sampled_from(["random", "stratified", "per_stream", "device_per_stream"])
        ),
        sampling_method=draw(st.sampled_from(["balanced", "fixed"])),
        sampling_granularity=draw(st.sampled_from([1, 7])),
        batch_size=draw(st.integers(1, 6)),
    )
    nodes, ranks = draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([1, 2, 3]))
    replication = draw(st.sampled_from([r for r in (1, 2, 3) if nodes * ranks % r == 0]))
    return data, World(nodes, ranks, 1, 0).replicate(replication), draw(st.integers(0, 3))


def both(job):
    """Stock's rows and the lazy order."""
    data, world, epoch = job
    logging.getLogger("streaming").setLevel(logging.ERROR)
    try:
        rows = generate_rows(data, world, epoch)
    except (ValueError, IndexError, ZeroDivisionError):
        assume(False)  # stock refuses (or cannot do) these settings
    return rows, lazy_order(data, *layouts(data, world), epoch)


def all_rows(order):
    """Every row of a lazy order in reading order, -1 where there is none."""
    return order.rows.between(0, order.rows.total)[:, canonical_slots(order.origin)]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, **_common)
@given(job=jobs(shuffle=False))
def test_without_shuffle_it_reads_the_shards_that_stock_reads_where_stock_reads_them(job):
    stock, order = both(job)
    data = job[0]
    stock = stock[(stock >= 0).any(axis=1)]
    lazy = all_rows(order)
    lazy = lazy[(lazy >= 0).any(axis=1)]
    assert lazy.shape == stock.shape and np.array_equal(lazy < 0, stock < 0)
    assert order.full == int((stock >= 0).all(axis=1).sum())
    starts = np.append(data.sample_offset_per_shard, data.num_samples)
    places = [
        np.where(ids >= 0, np.searchsorted(starts, ids, side="right") - 1, -1)
        for ids in (lazy, stock)
    ]
    whole = all(
        stream.choose % sum_ == 0 for stream, sum_ in zip(data.streams, _sums(data), strict=True)
    )
    if data.batching_method in ("random", "stratified"):
        assert np.array_equal(*places)
        assert not whole or np.array_equal(lazy, stock)
    else:  # which stream's turn it is differs; how often a shard has its turn does not
        assert np.array_equal(
            *(np.bincount(part[part >= 0], minlength=len(starts)) for part in places)
        )
        assert not whole or np.array_equal(np.sort(lazy, None), np.sort(stock, None))


def _sums(data):
    return np.add.reduceat(data.samples_per_shard, data.shard_offset_per_stream)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, **_common)
@given(job=jobs(shuffle=True), draw=st.data())
def test_shuffled_it_reads_each_sample_as_often(job, draw):
    stock, order = both(job)
    data, _, epoch = job
    lazy = all_rows(order)
    for rows in (lazy, stock):
        assert ((rows >= 0).all(axis=1)[: order.full]).all()
    sizes = [
        np.bincount(np.searchsorted(data.sample_offset_per_stream, r[r >= 0], side="right") - 1)
        for r in (lazy, stock)
    ]
    # Each stream as often; where rows are of all streams, whichever sample fills up the end counts
    # for its own.
    assert (
        np.array_equal(*sizes)
        if data.batching_method != "random"
        else sum(sizes[0]) == sum(sizes[1])
    )
    # Whole epochs are cut so that nodes and ranks have as many: a few samples come once more, or
    # not at all. What they are cut from has each sample as often as stock: each shard, and within a
    # shard each sample that does not come in part.
    for stream, samples in _sequences(order):
        expected = data.resample_streams(epoch, stream)[1]
        ids = samples.ids(np.arange(samples.total))
        mine, theirs = (np.bincount(part, minlength=data.num_samples) for part in (ids, expected))
        for begin, size in zip(data.sample_offset_per_shard, data.samples_per_shard, strict=True):
            assert np.array_equal(
                np.sort(mine[begin : begin + size]), np.sort(theirs[begin : begin + size])
            )
    # Any window, any rank: what brute force has there.
    begin = draw.draw(st.integers(0, order.full))
    end = draw.draw(st.integers(begin, order.full))
    window = order.window(begin, end)
    assert np.array_equal(window[:, canonical_slots(order.origin)], lazy[begin:end])
    per_rank = lazy.reshape(len(lazy), order.layout.ranks, order.layout.batch_size)
    for rank in range(order.layout.ranks):
        assert np.array_equal(order.of_rank(window, rank), per_rank[begin:end, rank])
        tail = [row[row >= 0].tolist() for row in per_rank[order.full :, rank] if (row >= 0).any()]
        assert [ids.tolist() for ids in order.tail(rank)] == tail
    # Without a teacher, workers that take turns read the same, from any row on.
    first, workers = draw.draw(st.integers(0, order.full)), draw.draw(st.integers(1, 3))
    read = [
        [ids for now, _ in lazy_steps(order, 0, first, worker, workers, 9) for ids in now]
        for worker in range(workers)
    ]
    got = [read[step % workers][step // workers].tolist() for step in range(sum(map(len, read)))]
    assert got == [row[row >= 0].tolist() for row in per_rank[first:, 0] if (row >= 0).any()]


def _sequences(order):
    if hasattr(order.rows, "_streams"):
        return list(enumerate(cut._samples for cut in order.rows._streams))
    samples = order.rows._samples
    return list(enumerate(samples)) if isinstance(samples, list) else [(None, samples)]


def test_epochs_differ_and_fixed_samples_do_not():
    data = Data(
        [([64] * 50, 1300)],
        shuffle=True,
        shuffle_algo="py1e",
        shuffle_seed=3,
        shuffle_block_size=500,
        num_canonical_nodes=2,
        partition_algo="relaxed",
        initial_physical_nodes=None,
        batching_method="random",
        sampling_method="fixed",
        sampling_granularity=1,
        batch_size=4,
    )
    world = World(2, 1, 1, 0)
    first, second = (all_rows(lazy_order(data, *layouts(data, world), epoch)) for epoch in (0, 1))
    assert (
        np.array_equal(np.sort(first, None), np.sort(second, None))
        and (first == second).mean() < 0.05
    )
    data.sampling_method = "balanced"
    other = all_rows(lazy_order(data, *layouts(data, world), 1))
    assert not np.array_equal(np.sort(first, None), np.sort(other, None))


def test_shards_are_found_as_by_streamings_spanner():
    sizes = np.array([0, 3, 0, 0, 1500, 7, 0])
    ours, stock = SearchedSpanner(sizes), Spanner(sizes.copy())
    assert [ours[index] for index in range(1510)] == [stock[index] for index in range(1510)]
    for index in (-1, 1510):
        with pytest.raises(IndexError, match="Invalid sample index"):
            ours[index]


def test_readers_are_streamings(tmp_path):
    write_ids(tmp_path / "plain", 60)
    with MDSWriter(
        out=str(tmp_path / "zip"),
        columns={"id": "int"},
        compression="zstd",
        hashes=["sha1"],
        size_limit=600,
    ) as out:
        for number in range(99):
            out.write({"id": number})
    for name in ("plain", "zip"):
        stream, world = Stream(local=str(tmp_path / name), split=""), World(1, 1, 1, 0)
        stock, ours = stream.get_shards(world, False), read_shards(stream, world, False)
        assert len(ours) > 1 and [vars(reader) for reader in ours] == [
            vars(reader) for reader in stock
        ]
        hand_on(stream, ours)
        assert (
            stream.get_shards(world, False) is ours and stream.get_shards(world, False) is not ours
        )


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


def test_loaders_taught_plain_and_resumed(tmp_path):
    """Without a teacher and with everything kept, the same batches; from any state, the batches
    that follow it.
    """
    data = {
        "local": write_ids(tmp_path / "data", 131),
        "batch_size": 4,
        "shuffle": True,
        "num_canonical_nodes": 2,
    }
    data |= {"window": 5, "gap": 1, "order": "lazy"}
    kept = make_loader(data, {}, {"keep": 1.0})
    whole = [run_epochs(kept)["lessons"] for _ in range(2)]
    assert [sorted(set(sum(epoch, []))) for epoch in whole] == [list(range(131))] * 2 and whole[
        0
    ] != whole[1]
    for workers in (0, 3):
        plain = TeachingDataLoader(TeachingDataset(**data), batch_size=4, num_workers=workers)
        assert [[batch["id"].tolist() for batch in plain] for _ in range(2)] == whole
    states, batches = [], []
    for step, batch in enumerate(plain):
        batches.append(batch["id"].tolist())
        states.append(plain.dataset.state_dict(4 * (step + 1), True))
    assert states[0]["attent"] == "lazy"
    for step in (0, 6, 20):
        resumed = TeachingDataLoader(TeachingDataset(**data), batch_size=4)
        resumed.dataset.load_state_dict(json.loads(json.dumps(states[step])))
        assert [batch["id"].tolist() for batch in resumed] == batches[step + 1 :]
    loader = make_loader(data, {}, {"keep": 0.5, "select": "soft"})
    lessons, taught = [], []
    for step, batch in enumerate(loader):
        loader.teach(lambda b: b["difficulty"])
        lessons.append(batch["id"].tolist())
        taught.append(loader.dataset.state_dict(4 * (step + 1), True))
        loader.teacher.clock.batches += 1
    assert len(lessons) < len(batches)
    for step in range(0, len(lessons) - 1, 3):
        again = make_loader(data, {"num_workers": step % 2}, {"keep": 0.5, "select": "soft"})
        again.dataset.load_state_dict(taught[step])
        again.teacher.clock.batches = step + 1
        assert run_epochs(again)["lessons"] == lessons[step + 1 :]
    other = TeachingDataset(**data | {"order": "streaming"})
    for state in (taught[4], states[4]):
        with pytest.raises(ValueError, match="order: lazy, this data set has order: streaming"):
            other.load_state_dict(state)
    stock = StreamingDataset(
        **{name: data[name] for name in ("local", "batch_size", "shuffle", "num_canonical_nodes")}
    )
    next(iter(stock))
    for state in (other.state_dict(8, True) | {"epoch": 0}, stock.state_dict(8, True)):
        with pytest.raises(ValueError, match="order: streaming, this data set has order: lazy"):
            kept.dataset.load_state_dict(state)
    # At an epoch's beginning either goes on
    kept.dataset.load_state_dict(other.state_dict(0, True))
