"""The board: what is published is read, and nothing that is torn."""

import numpy as np
import pytest

from attent_stream.arrange.cutting import MOST
from attent_stream.base.errors import TeacherError
from attent_stream.teach.board import _HEADER, Board, BoardClosed, Posting
from attent_stream.window.layout import CANDIDATE, LESSON


def posting(first_step: int = 0, steps: int = 4, width: int = 2, **changes) -> Posting:
    fields = {
        "first_step": first_step,
        "ids": np.arange(steps * width).reshape(steps, width) - 1,
        "roles": np.array([LESSON, CANDIDATE] * steps)[:steps].astype(np.int64),
        "lesson_notes": (4, 0),
        "candidate_notes": (0, 1),
        "scored": True,
        "last": False,
        "ahead": np.arange(3),
    }
    return Posting(**fields | changes)


def same(one: Posting, other: Posting) -> bool:
    arrays = ("ids", "roles", "ahead")
    plain = ("first_step", "scored", "last")
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and all(getattr(one, name) == getattr(other, name) for name in plain)
        and one.lesson_notes[:2] == other.lesson_notes[:2]
        and one.candidate_notes[:2] == other.candidate_notes[:2]
    )


def test_what_is_published_is_read():
    board = Board(steps=4, batch_size=2, ahead=3)
    generation = board.begin(True, epoch=7)
    board.tell('[["pieces", 0.5], ["balance", "tokens"]]', "ngrams")
    assert board.taught(generation) and board.epoch(generation) == 7
    made = [posting(), posting(4, 3, 2 * MOST, scored=False, last=True), posting(7, 0)]
    for index, one in enumerate(made[:2]):
        assert board.read(generation, index) is None
        board.publish(index, one)
        assert same(board.read(generation, index), one)
    assert same(board.read(generation, 0), made[0])  # two slots
    board.publish(2, made[2])
    board.publish(3, posting(7))
    assert len(board.read(generation, 0).ids) == 0  # overwritten: a late reader goes on
    assert board.arrangements == '[["pieces", 0.5], ["balance", "tokens"]]'
    assert board.view == "ngrams"


def test_it_holds_numbers_only_and_no_torn_posting_is_read():
    board = Board(steps=4, batch_size=2, ahead=3)
    generation = board.begin(True)
    board.publish(0, posting(width=2 * MOST))
    assert not board._memory.dtype.is_floating_point
    rng = np.random.default_rng(1)
    for word in range(_HEADER, board._memory.numel() // 2):  # any word of the slot, overwritten
        before = int(board._memory[word])
        board._memory[word] = int(rng.integers(-(2**62), 2**62))
        assert board.read(generation, 0) is None
        board._memory[word] = before
    assert board.read(generation, 0) is not None


def test_readers_of_an_iteration_that_is_over_stop():
    board = Board(steps=4, batch_size=2, ahead=3)
    first = board.begin(True)
    board.publish(0, posting())
    second = board.begin(False)
    with pytest.raises(BoardClosed):
        board.read(first, 0)
    assert board.read(second, 0) is None and not board.taught(second)
    board.end(second)
    with pytest.raises(BoardClosed):
        board.wait(second, 0, 60.0)


def test_what_does_not_fit_is_refused():
    board = Board(steps=4, batch_size=2, ahead=3)
    generation = board.begin(True)
    for wrong in (posting(steps=5), posting(width=1), posting(ahead=np.arange(4))):
        with pytest.raises(ValueError, match="expected at most 4 steps of 2 ids and 3 ids ahead"):
            board.publish(0, wrong)
    with pytest.raises(ValueError, match="expected segment 0 to be published next, got 1"):
        board.publish(1, posting())
    with pytest.raises(ValueError, match="arrange takes at most 16384 bytes as JSON"):
        board.tell("x" * 20000, "")
    with pytest.raises(TeacherError, match="waited 0 s for segment 0"):
        board.wait(generation, 0, 0.0)
