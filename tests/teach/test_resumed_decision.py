"""What a checkpoint decided about the next window, under the settings of the run that resumes."""

import numpy as np
import pytest
from taught import make_teacher
from windows import window_of

from attent_stream.teach.position import Chosen, Position
from attent_stream.teach.resumed_decision import checked, resumed_decision
from attent_stream.window.decision import ALL, RANDOM, REMEMBERED, SCORED, Decision

WINDOW = window_of(8, 2, index=2, epoch=0)


def position_of(planned: Decision | None, lesson: int = 1, **changes) -> Position:
    chosen = Chosen(
        decision=Decision(by=ALL, lessons=8), kept=np.ones((8, 2), bool), weights=None, places=None
    )
    fields = {
        "identity": {},
        "arrangements": "[]",
        "epoch": 0,
        "first_row": 0,
        "segment": 1,
        "lesson": lesson,
        "current": chosen,
        "following": None,
        "next": planned,
        "scores": None,
    }
    return Position(**{**fields, **changes})


def resumed(teacher, decision: Decision | None, **changes) -> Decision | None:
    return resumed_decision(teacher, WINDOW, position_of(decision, **changes))


def test_after_the_last_window_nothing_is_decided():
    teacher = make_teacher()
    assert resumed(teacher, None) is None
    position = position_of(Decision(by=SCORED, lessons=4))
    assert resumed_decision(teacher, None, position) is None


@pytest.mark.parametrize(
    ("teacher", "decision"),
    [
        ({"select": "hard", "keep": 0.25}, Decision(by=SCORED, lessons=6)),
        ({"select": "random", "keep": 0.25}, Decision(by=RANDOM, lessons=6)),
        ({"select": "random", "keep": 1.0}, Decision(by=ALL, lessons=8)),
        ({"select": "hard", "keep": 0.25}, Decision(by=ALL, lessons=8)),
    ],
)
def test_what_can_be_carried_out_stays(teacher, decision):
    assert resumed(make_teacher(**teacher), decision) == decision


@pytest.mark.parametrize(
    ("teacher", "decision", "expected"),
    [
        # No candidate is scored any more
        ({"select": "random", "keep": 0.25}, SCORED, Decision(by=RANDOM, lessons=2)),
        ({"select": "hard", "keep": 1.0}, SCORED, Decision(by=ALL, lessons=8)),
        # Some candidates may have been passed by
        ({"select": "hard", "keep": 0.25}, RANDOM, Decision(by=ALL, lessons=8)),
        ({"select": "hard", "keep": 0.25}, REMEMBERED, Decision(by=ALL, lessons=8)),
    ],
)
def test_what_cannot_be_carried_out_is_decided_again(teacher, decision, expected):
    assert resumed(make_teacher(**teacher), Decision(by=decision, lessons=6)) == expected


def test_it_is_remembered_if_the_ledger_still_knows_it():
    decision = Decision(by=REMEMBERED, lessons=4)
    teacher = make_teacher(select="hard", interval="9ep", ledger=16)
    assert resumed(teacher, decision) == Decision(by=ALL, lessons=8)
    teacher.remember(np.arange(16), np.ones(16), 0.0)
    assert resumed(teacher, decision) == decision


@pytest.mark.parametrize(("lesson", "lessons"), [(3, 8), (2, 2)])
def test_it_is_decided_for_the_lessons_ahead(lesson, lessons):
    """A warm-up of 14 batches; 8 lessons of the current window and 8 of the following."""
    teacher = make_teacher(select="random", keep=0.25, warmup="14ba")
    following = position_of(None).current
    found = resumed(teacher, Decision(by=SCORED, lessons=4), lesson=lesson, following=following)
    assert found.lessons == lessons


def test_no_arrangement_is_added_and_those_that_are_off_are_dropped():
    teacher = make_teacher(select="random", keep=0.5, balance="ids")
    plain = Decision(by=RANDOM, lessons=4)
    assert resumed(teacher, plain) == plain
    assert resumed(teacher, Decision(by=SCORED, lessons=6)) == plain
    balanced = teacher.arrangements.noted(plain, [("balance", 1)])
    assert balanced.features and resumed(teacher, balanced) == balanced
    teacher.stop_arranging("balance")
    assert resumed(teacher, balanced) == plain


@pytest.mark.parametrize(
    "decision",
    [
        Decision(by=RANDOM, lessons=4, units=2),
        Decision(by=RANDOM, lessons=4, features=True),
        Decision(by=RANDOM, lessons=4, notes=(("pieces", 2),), units=4),
    ],
)
def test_notes_that_contradict_a_decision_are_damage(decision):
    teacher = make_teacher(select="random", pieces=0.5)
    for call in (lambda: checked(teacher, decision), lambda: resumed(teacher, decision)):
        with pytest.raises(ValueError, match="the checkpoint's teaching position is damaged: "):
            call()
    good = Decision(by=RANDOM, lessons=4, notes=(("pieces", 2),), units=2)
    assert checked(teacher, good) is good
