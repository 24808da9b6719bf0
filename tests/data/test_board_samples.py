"""What a worker makes of a posting: its samples, and a task for each role."""

import numpy as np
import pytest

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.data.board_samples import _reading_list, _tasks
from attent_stream.teach.board import Posting
from attent_stream.window.layout import CANDIDATE, LESSON


def posting(**more) -> Posting:
    given = {
        "first_step": 7,
        "ids": np.array([[0, 5, 2, 7], [8, 9, -1, -1], [4, 3, 9, 1]]),
        "roles": np.array([LESSON, CANDIDATE, LESSON]),
        "lesson_notes": (2, 0),
        "candidate_notes": (0, 1),
        "scored": False,
        "last": False,
        "ahead": np.array([20, 21, 22, 23]),
    }
    return Posting(**given | more)


def test_a_worker_reads_samples_of_its_steps_and_its_share_of_what_comes():
    mine = np.array([True, True, False])
    # Units of lessons are pieces, two of a sample
    assert _reading_list(posting(), mine, 2, 0, 2).tolist() == [0, 2, 1, 3, 8, 9, 20, 22]
    assert _reading_list(posting(), ~mine, 1, 1, 2).tolist() == [4, 3, 9, 1, 21, 23]


@pytest.mark.parametrize("scored", [False, True])
def test_what_is_made_of_each_role(scored):
    arrangements = Arrangements.parse({"pieces": 0.5, "balance": "tokens"})
    tasks = _tasks(posting(scored=scored), arrangements, "tokens")
    lesson, candidate = tasks[LESSON], tasks[CANDIDATE]
    assert lesson.lesson and lesson.units == 2 and dict(lesson.decision.notes) == {"pieces": 2}
    assert not candidate.lesson and candidate.units == 1 and candidate.decision.features
    assert candidate.scored == scored
    assert candidate.view == "tokens" and not lesson.view
