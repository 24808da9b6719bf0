"""The segments of an epoch. Oracle: an order whose rows are counted up."""

import numpy as np
import pytest
from windows import Rows, choice_of

from attent_stream.teach.segments import Segments
from attent_stream.window.decision import ALL, RANDOM, SCORED, Decision
from attent_stream.window.layout import CANDIDATE, LESSON, due_lesson

TAILS = ([[100, 102, 104], [106, 108, 110], [112]], [[101, 103, 105], [107, 109, 111], []])


def segments_of(order: Rows, rank: int = 0, **changes) -> Segments:
    settings = {"window": 4, "gap": 1, "steps": 2, "drop_last": False, "first_row": 0} | changes
    return Segments(order, rank=rank, **settings)


@pytest.mark.parametrize("first_row", [0, 3, 10, 11])
def test_windows_are_the_rows_from_the_first_on(first_row):
    order = Rows(11)
    segments = segments_of(order, first_row=first_row)
    windows = [segments.window(index) for index in range(segments.count)]
    rows = [row for window in windows for row in window.ids.tolist()]
    assert rows == order.window(first_row, 11).tolist()
    assert segments.window(segments.count) is None
    at = first_row
    for index, window in enumerate(windows):
        assert (window.epoch, window.index, window.unit) == (4, index, 6)
        assert window.share == at / 11
        at += len(window.ids)
        assert window.until == at / 11
        assert window.lanes.tolist() == [[0, 1, 0, 1, 0, 1]] * len(window.ids)


def test_a_rank_reads_its_share_of_a_window():
    order = Rows(11)
    for index in range(4):
        of_ranks = [segments_of(order, rank).ids_of_window(index) for rank in (0, 1)]
        expected = order.window(4 * index, min(4 * index + 4, 11)) if index < 3 else []
        assert sorted(np.concatenate(of_ranks)) == sorted(np.reshape(expected, -1))
    assert segments_of(order).ids_of_window(0).tolist() == list(range(0, 24, 2))


@pytest.mark.parametrize("units", [1, 2])
def test_ranks_together_have_the_lessons_of_a_choice(units):
    order = Rows(11)
    window, following = (segments_of(order).window(index) for index in (0, 1))
    choice = choice_of(window, 3, units)
    decision = Decision(by=SCORED, lessons=2)
    made = [segments_of(order, rank).of_choice(choice, 0, following, decision) for rank in (0, 1)]
    for row in range(3):
        found = [
            set(zip(one.lessons[row], one.pieces[row], one.weights[row], strict=True))
            for one in made
        ]
        expected = set(zip(choice.ids[row], choice.pieces[row], choice.weights[row], strict=True))
        assert found[0] | found[1] == expected and not found[0] & found[1]
    # The slots of a rank stay together with their pieces
    slots = choice.ids.reshape(3, 6, units)
    for rank, one in enumerate(made):
        np.testing.assert_array_equal(one.lessons.reshape(3, 3, units), slots[:, rank::2])
        assert one.candidates.tolist() == following.ids[:, rank::2].tolist()
        assert one.roles.tolist().count(LESSON) == 3 and one.roles.tolist().count(CANDIDATE) == 4
        assert one.due == due_lesson(3, 1)


@pytest.mark.parametrize(
    ("decision", "read"),
    [
        (None, False),
        (Decision(by=ALL, lessons=4), False),
        (Decision(by=RANDOM, lessons=2), False),
        (Decision(by=SCORED, lessons=2), True),
        (Decision(by=ALL, lessons=4, features=True), True),
    ],
)
def test_candidates_are_read_where_they_are_needed(decision, read):
    segments = segments_of(Rows(11))
    choice = choice_of(segments.window(0), 2)
    segment = segments.of_choice(choice, 0, segments.window(1), decision)
    assert segment.candidates.shape == (4 if read else 0, 3)
    assert segment.ids.shape == (6 if read else 2, 3)
    assert len(segments.of_choice(choice, 2, None, decision).candidates) == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_the_last_segments_carry_what_follows_the_last_full_row(rank):
    tails = [tail[: 3 - rank] for tail in TAILS]
    segments = segments_of(Rows(8, tails), rank)
    assert segments.count == 2 + (2 if rank == 0 else 1)
    first = segments.of_tail(2)
    assert first.lessons.tolist() == TAILS[rank][:2] and first.choice is None
    assert first.roles.tolist() == [LESSON, LESSON] and first.due == 0
    assert not first.pieces.any() and (first.weights == 1).all()
    if rank == 0:
        assert segments.of_tail(3).lessons.tolist() == [[112, -1, -1]]


def test_a_short_last_batch_is_dropped():
    segments = segments_of(Rows(8, TAILS), drop_last=True)
    assert segments.count == 3
    assert segments.of_tail(2).lessons.tolist() == TAILS[0][:2]


def test_an_epoch_that_begins_after_its_rows_is_over():
    assert segments_of(Rows(8, TAILS), first_row=8).count == 2
    assert segments_of(Rows(8, TAILS), first_row=9).count == 0


def test_identities_tell_epochs_apart():
    def identity(order=None, **changes):
        return segments_of(order or Rows(11), **changes).identity

    same = identity()
    assert identity(rank=1, steps=5, drop_last=True, first_row=2) == same
    assert identity(window=5) != same and identity(gap=2) != same
    for order in (Rows(10), Rows(11, kind="lazy"), Rows(11, stream_starts=np.array([0, 30]))):
        assert identity(order) != same
    turned = Rows(11)
    turned.window = lambda begin, end: Rows.window(turned, begin, end)[:, ::-1]
    differ = [name for name, value in identity(turned).items() if value != same[name]]
    assert differ == ["order (shuffle, its seed, stream proportions)"]
