"""Numbers of lesson rows. Oracle: a loop over all windows that asks the teacher about each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taught import make_teacher

from attent_stream.teach.lengths import expected_rows, most_rows
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Window
from attent_stream.window.layout import lesson_count

KEEPS = [
    0.3,
    1.0,
    {"schedule": "linear", "from": 0.2, "to": 0.9, "over": "60ba"},
    {"schedule": "step", "from": 1.0, "to": 0.5, "over": "3ep", "stages": 3},
]


def scoring_first(teacher: Teacher, scores: bool) -> Teacher:
    """A teacher that may score the first window of an epoch."""
    teacher.first = np.zeros_like if scores else None
    return teacher


teachers = st.builds(
    scoring_first,
    st.builds(
        make_teacher,
        keep=st.sampled_from(KEEPS),
        select=st.sampled_from(["hard", "random"]),
        warmup=st.sampled_from(["0ba", "7ba", "1ep"]),
        anneal=st.sampled_from(["0ba", "9ba"]),
        total=st.just("90ba"),
    ),
    st.booleans(),
)


def decided(teacher, rows: int, window: int, epochs: range) -> list[int]:
    """Lesson rows of each epoch, by the teacher's decision about each window."""
    lessons, found = 0, []
    for epoch in epochs:
        before = lessons
        for index, begin in enumerate(range(0, rows, window)):
            end = min(begin + window, rows)
            ids = np.arange(begin, end)[:, None]
            given = Window(
                epoch=epoch,
                index=index,
                ids=ids,
                lanes=np.zeros_like(ids),
                unit=1,
                share=begin / rows,
                until=end / rows,
            )
            lessons += teacher.decide(given, lessons).lessons
        found.append(lessons - before)
    return found


@given(teachers, st.integers(0, 60), st.integers(1, 9), st.integers(0, 2), st.integers(0, 30))
def test_an_epoch_has_what_the_teacher_decides(teacher, rows, window, epoch, now):
    teacher.clock.batches = now
    (expected,) = decided(teacher, rows, window, range(epoch, epoch + 1))
    assert most_rows(teacher, rows, window, epoch, 0) == expected
    # Later in the epoch the clock has counted some of its lessons
    teacher.clock.batches = now + 5
    assert most_rows(teacher, rows, window, epoch, 5) == expected


def test_a_first_window_that_is_remembered_makes_an_epoch_shorter():
    teacher = make_teacher(keep=0.5, interval="9ep", ledger=40)
    teacher.remember(np.arange(40), np.ones(40), 0.0)
    assert decided(teacher, 40, 8, range(1)) == [20]
    assert most_rows(teacher, 40, 8, 0, 0) == 24


@given(teachers, st.integers(0, 12), st.integers(1, 9), st.integers(0, 2), st.integers(0, 3))
def test_few_windows_are_all_looked_at(teacher, windows, window, first, epochs):
    """Where all windows are full, nothing is estimated."""
    epochs, rows = range(first, first + epochs), windows * window
    expected = sum(decided(teacher, rows, window, epochs))
    assert expected_rows(teacher, rows, window, epochs, 0, False) == expected
    teacher.clock.batches = 5
    assert expected_rows(teacher, rows, window, epochs, 5, False) == expected


@settings(max_examples=20)
@given(teachers, st.integers(33, 400), st.integers(2, 9), st.integers(0, 8))
def test_many_windows_are_estimated(teacher, windows, window, more):
    rows = windows * window + more % window
    expected = sum(decided(teacher, rows, window, range(3)))
    found = expected_rows(teacher, rows, window, range(3), 0, False)
    # Of each stretch of windows the first is evaluated
    assert found == pytest.approx(expected, rel=0.05, abs=3 * (-(-windows // 32) + 1) * window)


@pytest.mark.parametrize(("again", "now"), [(False, False), (True, False), (False, True)])
def test_remembered_epochs_have_no_whole_first_window(again, now):
    teacher = make_teacher(keep=0.3, interval="9ep", ledger=40)
    if now:
        teacher.remember(np.arange(40), np.ones(40), 0.0)
    each = lesson_count(8, 0.3)
    whole = [0, 0, 0] if now else [8 - each, 0, 0] if again else [8 - each] * 3
    expected = 3 * 5 * each + sum(whole)
    assert expected_rows(teacher, 40, 8, range(3), 0, again) == expected
