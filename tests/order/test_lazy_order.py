"""The lazy order against Streaming's and, for any window, against brute force."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaders import ids_data
from orders import Data, all_rows, both, jobs
from seeded import seeded
from streaming import StreamingDataset
from streaming.base.world import World
from taught import make_loader, run_epochs

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.order.lazy_order import lazy_order, lazy_steps
from attent_stream.order.open_order import layouts
from attent_stream.window.layout import canonical_slots


@pytest.mark.filterwarnings("ignore")
@seeded(400)
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
    else:  # the merge of streams differs; how often each shard is read does not
        assert np.array_equal(
            *(np.bincount(part[part >= 0], minlength=len(starts)) for part in places)
        )
        assert not whole or np.array_equal(np.sort(lazy, None), np.sort(stock, None))


def _sums(data):
    return np.add.reduceat(data.samples_per_shard, data.shard_offset_per_stream)


@pytest.mark.filterwarnings("ignore")
@seeded(250)
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
    # Without a teacher, round-robin workers read the same from any row on.
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


def test_loaders_taught_plain_and_resumed(tmp_path):
    """Without a teacher and with everything kept, the same batches; from any state, the batches
    that follow it.
    """
    data = ids_data(
        tmp_path, 131, shuffle=True, num_canonical_nodes=2, window=5, gap=1, order="lazy"
    )
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
