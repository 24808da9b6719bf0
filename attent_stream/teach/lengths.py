"""Forecasts of the number of lesson rows in an epoch."""

import numpy as np

from attent_stream.teach.teacher import Teacher
from attent_stream.window.layout import lesson_count, window_rows

_LOOKS = 32  # windows of an epoch that an estimate evaluates


def most_rows(teacher: Teacher, rows: int, window: int, epoch: int, done: int) -> int:
    """Return the largest possible number of lesson rows in an epoch, for a foreseeable teacher.

    The Trainer would cut off a longer epoch, while a shorter one only ends early. So the first
    window counts as kept whole, although the ledger may know its samples.

    Args:
        teacher: The teacher, whose clock reads the current time.
        rows: Rows in the epoch.
        window: Rows in a window.
        epoch: Number of the epoch.
        done: Lessons of this epoch that the clock has already counted.
    """
    lessons, index = 0, 0
    while True:
        begin, end = window_rows(rows, 0, window, index)
        if begin == end:
            return lessons
        untaught = index == 0 and teacher.uses_scores and teacher.first is None
        clock = teacher.clock(lessons - done, epoch, begin / rows)
        lessons += end - begin if untaught else lesson_count(end - begin, teacher.keep(clock))
        index += 1


def expected_rows(
    teacher: Teacher, rows: int, window: int, epochs: range, done: int, again: bool
) -> int:
    """Estimate the total number of lesson rows in epochs from some of their windows.

    Args:
        teacher: The teacher, whose clock reads the current time.
        rows: Rows in each epoch.
        window: Rows in a window.
        epochs: Numbers of the epochs, starting with the next one.
        done: Lessons of the first epoch that the clock has already counted.
        again: Whether an epoch's samples are remembered in the epochs after it.
    """
    windows = -(-rows // window)
    if not windows:
        return 0
    # The first window is evaluated by itself, as it may be the only one that is kept whole.
    borders = np.unique([0, *np.linspace(1, windows, min(windows, _LOOKS)).round().astype(int)])
    lessons, now = 0.0, teacher.remembers_most(teacher.clock(0, epochs.start, 0.0))
    for epoch in epochs:
        remembered = now or (again and epoch > epochs.start)
        for first, end_window in zip(borders[:-1], borders[1:], strict=True):
            begin, end = first * window, min(end_window * window, rows)
            clock = teacher.clock(round(lessons) - done, epoch, begin / rows)
            lessons += (
                (end - begin)
                * lesson_count(window, teacher.expected_keep(clock, first == 0, remembered))
                / window
            )
    return round(lessons)
