"""How long epochs will be: how many rows a teacher will leave of each, told before it has
chosen.
"""

import numpy as np

from attent_stream.teach.teacher import Teacher
from attent_stream.window.layout import lesson_count, window_rows

_LOOKS = 32  # windows of an epoch that are looked at for an estimate


def most_rows(teacher: Teacher, rows: int, window: int, epoch: int, done: int) -> int:
    """Rows that will be left of an epoch at most, of a foreseeable teacher.

    An epoch that turns out shorter than said only ends early; one that turns out longer would be
    cut off by the Trainer, so the first window counts as untaught though the ledger may know it.

    Args:
        teacher: Whose clock reads now.
        rows: Of the epoch.
        window: Rows of a window.
        epoch: Which.
        done: Lessons of this epoch that the clock has counted already.
    """
    lessons, index = 0, 0
    while True:
        begin, end = window_rows(rows, 0, window, index)
        if begin == end:
            return lessons
        untaught = index == 0 and teacher.uses_scores
        clock = teacher.clock(lessons - done, epoch, begin / rows)
        lessons += end - begin if untaught else lesson_count(end - begin, teacher.keep(clock))
        index += 1


def expected_rows(
    teacher: Teacher, rows: int, window: int, epochs: range, done: int, again: bool
) -> int:
    """Rows that will be left of epochs, by some of their windows: for what is planned ahead, such
    as learning rates.

    Args:
        teacher: Whose clock reads now.
        rows: Of each epoch.
        window: Rows of a window.
        epochs: Which, from the one that comes next on.
        done: Lessons of the first that the clock has counted already.
        again: Whether all that an epoch has will be remembered in those behind it.
    """
    windows = -(-rows // window)
    if not windows:
        return 0
    # The first window by itself: it may be kept whole where the others are not.
    borders = np.unique([0, *np.linspace(1, windows, min(windows, _LOOKS)).round().astype(int)])
    lessons, now = 0.0, teacher.remembers_most(teacher.clock(0, epochs.start, 0.0))
    for epoch in epochs:
        remembered = now or (again and epoch > epochs.start)
        for first, behind in zip(borders[:-1], borders[1:], strict=True):
            begin, end = first * window, min(behind * window, rows)
            clock = teacher.clock(round(lessons) - done, epoch, begin / rows)
            lessons += (
                (end - begin)
                * lesson_count(window, teacher.expected_keep(clock, first == 0, remembered))
                / window
            )
    return round(lessons)
