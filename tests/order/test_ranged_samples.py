"""Sequences of many shards, computed by ranges, against counts of each sample by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded import seeded

from attent_stream.order import ranged_samples, ranges
from attent_stream.order.lazy_samples import Samples, Shuffle
from attent_stream.order.ranged_samples import RangedSamples, can_be_ranged
from attent_stream.order.stream_counts import shares
from attent_stream.order.stream_reads import StreamReads, samples_of

ALGOS = [None, "py1e", "py1br", "py1s", "py2s"]


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(ranges, "SHARDS", 3)


def reads_of(sizes, choose, begin=0, seed=7):
    sizes = np.array(sizes, np.int64)
    return StreamReads(
        first=begin + np.cumsum(sizes) - sizes,
        samples=sizes,
        choose=choose,
        granularity=1,
        count_seed=seed,
        seed=seed,
    )


def streams_of(streams):
    made, begin = [], 0
    for sizes, share in streams:
        made.append(reads_of(sizes, max(1, int(share * sum(sizes))), begin))
        begin += sum(sizes)
    return made


def shuffle_of(algo, epoch=1, block_size=20):
    return algo and Shuffle(algo=algo, seed=1, epoch=epoch, block_size=block_size)


STREAMS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 30), min_size=1, max_size=30),
        st.one_of(st.just(1.0), st.floats(0.05, 3.2)),
    ),
    min_size=1,
    max_size=3,
)


@seeded(200)
@given(streams=STREAMS, canonical=st.integers(1, 5), algo=st.sampled_from(ALGOS), draw=st.data())
def test_each_sample_is_read_as_often_as_its_stream(streams, canonical, algo, draw):
    reads = streams_of(streams)
    shuffle = shuffle_of(algo, draw.draw(st.integers(0, 3)), draw.draw(st.integers(1, 100)))
    samples = RangedSamples(reads, canonical, shuffle)
    ids = samples.ids(np.arange(samples.total))
    assert samples.total == len(ids) == sum(stream.choose for stream in reads)
    often = np.bincount(ids, minlength=sum(sum(sizes) for sizes, _ in streams))
    for stream in reads:
        begin, size = int(stream.first[0]), int(stream.samples.sum())
        read = often[begin : begin + size]
        assert read.sum() == stream.choose and read.max() - read.min() <= 1
        # A shard is read in proportion, too
        for first, length in zip(stream.first, stream.samples, strict=True):
            expected = stream.choose * length / size
            assert abs(often[first : first + length].sum() - expected) < 3
    some = draw.draw(st.lists(st.integers(0, samples.total - 1), max_size=6))
    assert samples.ids(np.array(some, np.int64)[:, None]).tolist() == ids[some][:, None].tolist()
    again = RangedSamples(reads, canonical, shuffle)
    assert again.ids(np.array(some, np.int64)).tolist() == ids[some].tolist()


@pytest.mark.parametrize("algo", ALGOS[1:])
@pytest.mark.parametrize("canonical", [1, 4])
def test_a_canonical_node_has_the_same_samples_in_each_epoch_in_another_sequence(algo, canonical):
    reads = streams_of([([20] * 100, 1.0), ([11, 30, 2] * 20, 1.0)])
    epochs = []
    for epoch in range(3):
        samples = RangedSamples(reads, canonical, shuffle_of(algo, epoch, 60))
        borders = np.arange(canonical + 1) * samples.total // canonical
        ids = samples.ids(np.arange(samples.total))
        epochs.append([ids[a:b] for a, b in zip(borders, borders[1:], strict=False)])
    for nodes in zip(*epochs, strict=True):
        first, second, third = nodes
        assert set(first) == set(second) == set(third)
        for one, other in ((first, second), (second, third)):
            assert (one == other).mean() < 0.2


def test_without_a_shuffle_shards_are_read_in_sequence():
    sizes = [5, 9, 2, 7, 7, 1, 30]
    whole = RangedSamples([reads_of(sizes, sum(sizes))], 1, None)
    assert whole.ids(np.arange(whole.total)).tolist() == list(range(sum(sizes)))
    twice = reads_of(sizes, 2 * sum(sizes))
    expected = Samples(twice.units(), 1, None)
    at = np.arange(expected.total)
    assert (RangedSamples([twice], 1, None).ids(at) == expected.ids(at)).all()


def test_a_range_has_shards_of_the_whole_stream():
    reads = reads_of([10] * 300, 3000)
    ids = RangedSamples([reads], 1, shuffle_of("py1s")).ids(np.arange(3000))
    shards = ids // 10
    for begin in range(0, 3000, 30):  # ranges of three shards
        some = np.unique(shards[begin : begin + 30])
        assert len(some) == 3 and np.diff(some).min() >= 90


@pytest.mark.parametrize("algo", ["py1e", "py1br"])
def test_samples_are_spread_over_a_block_as_with_few_shards(algo):
    sizes, block = [16] * 600, 400
    reads, at = reads_of(sizes, sum(sizes)), np.arange(sum(sizes))
    shuffle = shuffle_of(algo, block_size=block)
    spreads = []
    for samples in (RangedSamples([reads], 2, shuffle), Samples(reads.units(), 2, shuffle)):
        where = np.argsort(samples.ids(at)).reshape(-1, 16)  # of the samples of each shard
        spreads.append((where.max(axis=1) - where.min(axis=1)).mean())
    assert 0.9 < spreads[0] / spreads[1] < 1.1


def test_tables_are_let_go_of(monkeypatch):
    reads = reads_of([4] * 3000, 12_000)
    samples = RangedSamples([reads], 1, shuffle_of("py1e"))
    for begin in range(0, 12_000, 100):
        samples.ids(np.arange(begin, begin + 100))
    assert len(samples._tables) <= samples._most < 1000


@seeded(200)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.data())
def test_shares_are_in_proportion(sizes, draw):
    sizes = np.array(sizes)
    total = int(sizes.sum())
    if not total:
        return
    rest = draw.draw(st.integers(0, total))
    found = shares(sizes, rest, np.random.default_rng(draw.draw(st.integers(0, 99))))
    assert found.sum() == rest and (found >= 0).all() and (found <= sizes).all()
    assert (np.abs(found - sizes * rest / total) < 1 + 1e-9).all()


def test_which_orders_are_by_ranges(monkeypatch):
    many = ranged_samples.MANY + 1
    assert can_be_ranged(many, 8, shuffle_of("py1e")) and can_be_ranged(many, 8, None)
    assert not can_be_ranged(many - 1, 8, shuffle_of("py1e"))
    assert not can_be_ranged(many, many // 1000, shuffle_of("py1e"))
    assert not can_be_ranged(many, 8, shuffle_of("naive"))
    monkeypatch.setattr(ranged_samples, "MANY", 10)
    reads = [reads_of([3] * 5000, 15_000)]
    assert isinstance(samples_of(reads, 1, shuffle_of("py1e")), RangedSamples)
    assert isinstance(samples_of(reads, 2, shuffle_of("py1e")), Samples)
