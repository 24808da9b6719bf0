"""Index arithmetic of windows. Oracles: Streaming's partitioning, loops and exact fractions."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streaming.base.partition import get_partitions

from attent_stream.window.layout import (
    CANDIDATE,
    LESSON,
    UNIT,
    Layout,
    canonical_slots,
    canonical_values,
    due_lesson,
    interleave,
    lane_labels,
    lesson_count,
    lesson_lanes,
    rank_slots,
    read_again,
    reading_order,
    window_rows,
)


def layout_of(nodes=1, ranks=1, batch=1, canonical=1, initial=1, batching="random") -> Layout:
    return Layout(
        nodes=nodes,
        ranks_per_node=ranks,
        batch_size=batch,
        canonical_nodes=canonical,
        initial_nodes=initial,
        batching=batching,
    )


small = st.integers(1, 4)
layouts = st.builds(layout_of, small, small, small, small, small, st.sampled_from(sorted(UNIT)))


@given(layouts, st.integers(0, 3))
def test_canonical_slots_are_a_permutation_that_ranks_share(layout, rank):
    slots = canonical_slots(layout)
    assert sorted(slots) == list(range(layout.row_size)) and not slots.flags.writeable
    if layout.batching in ("stratified", "device_per_stream"):
        assert (slots == np.arange(layout.row_size)).all()
    of_ranks = [rank_slots(layout, layout, rank) for rank in range(layout.ranks)]
    assert np.concatenate(of_ranks).tolist() == slots.tolist()


def test_canonical_rows_are_the_same_on_any_number_of_nodes_and_ranks():
    """Streaming reads the same global batches on 1, 2 and 4 nodes, each in another order."""
    row_size, canonical, samples = 24, 4, 24 * 8
    expected = get_partitions("orig", samples, canonical, 1, 1, 1, row_size).reshape(-1, row_size)
    for nodes, ranks in product((1, 2, 4), (1, 2, 3)):
        batch = row_size // nodes // ranks
        read = get_partitions("orig", samples, canonical, nodes, ranks, 1, batch)
        rows = read[:, :, 0].transpose(2, 0, 1, 3).reshape(-1, row_size)
        found = np.empty_like(rows)
        found[:, canonical_slots(layout_of(nodes, ranks, batch))] = rows
        np.testing.assert_array_equal(found, expected)


@given(layouts)
def test_no_lane_is_read_by_two_nodes(layout):
    """On every number of nodes that the canonical nodes and the row allow."""
    assert layout.row_size % layout.node_lanes == 0
    lanes = np.arange(layout.row_size) % layout.node_lanes
    canonical = max(layout.canonical_nodes, layout.initial_nodes)
    for nodes in range(1, canonical + 1):
        if canonical % nodes == 0 and layout.row_size % nodes == 0:
            node = np.arange(layout.row_size) % nodes
            assert len(set(zip(lanes, node, strict=True))) == layout.node_lanes


@given(layouts, st.integers(1, 3), st.integers(0, 2**31))
def test_lanes_are_those_of_a_loop(layout, count, seed):
    rng = np.random.default_rng(seed)
    starts, size, lanes = np.array([0, 5, 6]), layout.row_size, layout.node_lanes
    rows = rng.integers(0, 20, (count, size))
    found = lane_labels(rows, layout, starts)
    assert found.shape == rows.shape
    for row, slot in product(range(count), range(size)):
        stream = sum(start <= rows[row, slot] for start in starts.tolist()) - 1
        expected = {
            "random": slot % lanes,
            "per_stream": stream * lanes + slot % lanes,
            "stratified": stream * lanes + slot // (size // lanes),
            "device_per_stream": stream * layout.ranks + slot // layout.batch_size,
        }
        assert found[row, slot] == expected[layout.batching]


@given(st.integers(1, 200), st.integers(1, 64))
def test_lessons_are_rounded_half_up(candidates, of_64):
    expected = (2 * candidates * of_64 + 64) // 128
    assert lesson_count(candidates, of_64 / 64) == max(1, expected)


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 12))
def test_candidates_come_evenly_before_the_choice(candidates, lessons, gap):
    roles, due = interleave(candidates, lessons, gap), due_lesson(lessons, gap)
    assert roles.dtype == np.int8 and len(roles) == candidates + lessons
    assert np.count_nonzero(roles == CANDIDATE) == candidates
    at = np.flatnonzero(roles == LESSON)
    assert (roles[at[due] :] == LESSON).all()
    before = at - np.arange(lessons)  # candidates before each lesson
    for lesson in range(due + 1):
        assert abs(before[lesson] - Fraction((lesson + 1) * candidates, due + 1)) <= 1
    assert before[0] <= np.diff(before[: due + 1]).min(initial=candidates)


@given(st.integers(1, 100), st.integers(0, 40))
def test_the_choice_leaves_a_gap_of_at_most_a_quarter(lessons, gap):
    after = lessons - 1 - due_lesson(lessons, gap)
    assert 0 <= after <= min(gap, max(1, lessons // 4))
    assert after == gap or after in (lessons - 1, max(1, lessons // 4))


@given(st.integers(0, 60), st.integers(0, 70), st.integers(1, 20))
def test_windows_are_slices_of_the_rows(rows, first, window):
    expected = list(range(first, rows, window))
    for index, begin in enumerate(expected):
        assert window_rows(rows, first, window, index) == (begin, min(begin + window, rows))
    for index in (len(expected), len(expected) + 1):
        assert window_rows(rows, first, window, index) == (rows, rows)


@given(small, small, small, st.integers(1, 12), st.floats(0, 1, exclude_max=True), st.data())
def test_columns_of_units_keep_their_share(columns, unit, streams, rows, offset, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    count = data.draw(st.integers(1, rows))
    stream = rng.integers(0, streams, (rows, columns)).repeat(unit, axis=1)
    slots = np.arange(columns * unit)
    lanes = stream * len(slots) + slots  # the lane tells the stream and the slot
    found = lesson_lanes(lanes, count, unit, offset)
    assert found.shape == (count, len(slots))
    np.testing.assert_array_equal(found % len(slots), np.broadcast_to(slots, found.shape))
    of_unit = (found // len(slots)).reshape(count, columns, unit)
    assert (of_unit == of_unit[..., :1]).all()  # a unit stays of one stream
    for lane in np.unique(lanes):
        share = Fraction(int((lanes == lane).sum()) * count, rows)
        assert math.floor(share) <= (found == lane).sum() <= math.ceil(share)
    if count == rows:
        np.testing.assert_array_equal(found, lanes)


def test_units_are_a_row_or_a_device_batch():
    for batching, unit in {"random": 24, "per_stream": 24, "device_per_stream": 4}.items():
        assert layout_of(2, 3, 4, batching=batching).unit == unit


def test_bad_layouts_are_refused():
    with pytest.raises(ValueError, match="batching must be one of .*'random'.*, got 'striped'"):
        layout_of(batching="striped")
    with pytest.raises(ValueError, match="canonical_nodes must be at least 1, got 0"):
        layout_of(canonical=0)


@given(
    candidates=st.integers(0, 20),
    lessons=st.integers(1, 20),
    gap=st.integers(0, 20),
    done=st.integers(0, 40),
)
def test_what_is_read_again_follows_the_lessons_that_were_done(candidates, lessons, gap, done):
    roles = interleave(candidates, lessons, gap)
    done = min(done, len(roles))
    again = read_again(roles, done)
    trained = int((roles[:done] == LESSON).sum())
    assert again[:trained].tolist() == [LESSON] * trained
    assert again[trained:done].tolist() == [CANDIDATE] * (done - trained)
    assert again[done:].tolist() == roles[done:].tolist()


def test_values_of_ranks_in_canonical_slots():
    layout = layout_of(nodes=2, ranks=2, batch=3, canonical=2, initial=2)
    values = np.arange(4 * 5 * 3).reshape(4, 5, 3)
    found, slots = canonical_values(values, layout), canonical_slots(layout).reshape(4, 3)
    for rank, row, sample in product(range(4), range(5), range(3)):
        assert found[row, slots[rank, sample]] == values[rank, row, sample]
    assert (canonical_slots(layout)[reading_order(layout)] == np.arange(12)).all()
