"""What a segment's steps read, and what a checkpoint keeps of it. Oracle: a loop over its steps."""

from dataclasses import replace

import numpy as np
import pytest
from windows import choice_of, window_of

from attent_stream.teach.segment import Segment
from attent_stream.window.decision import ALL, Decision
from attent_stream.window.layout import CANDIDATE, LESSON


def segment_of(lessons, pieces, candidates, roles, choice=None) -> Segment:
    lessons = np.array(lessons)
    return Segment(
        index=3,
        lessons=lessons,
        pieces=np.array(pieces),
        weights=np.ones(lessons.shape, np.float32),
        candidates=np.array(candidates).reshape(-1, 2),
        roles=np.array(roles, np.int8),
        due=0,
        choice=choice,
    )


@pytest.mark.parametrize("units", [1, 2, 4])
def test_ids_of_lessons_in_pieces_and_of_candidates(units):
    rng = np.random.default_rng(units)
    lessons = rng.integers(0, 50, (3, 2 * units))
    pieces = rng.integers(0, units, lessons.shape)
    candidates = rng.integers(0, 50, (2, 2))
    roles = [CANDIDATE, LESSON, LESSON, CANDIDATE, LESSON]
    choice = choice_of(window_of(), 3, units)
    expected = [
        [*candidates[0], *[-1] * (2 * units - 2)],
        lessons[0] * units + pieces[0],
        lessons[1] * units + pieces[1],
        [*candidates[1], *[-1] * (2 * units - 2)],
        lessons[2] * units + pieces[2],
    ]
    segment = segment_of(lessons, pieces, candidates, roles, choice)
    assert segment.units == units and segment.decision is choice.decision
    assert segment.ids.tolist() == [list(row) for row in expected]


def test_a_short_step_is_filled_up():
    segment = segment_of([[7, 8], [9, -1]], [[0, 0], [0, 0]], [], [LESSON, LESSON])
    assert segment.ids.tolist() == [[7, 8], [9, -1]]


def test_what_follows_the_last_full_row_has_no_choice():
    segment = segment_of([[7, -1]], [[0, 0]], [], [LESSON])
    assert segment.chosen is None and segment.units == 1
    assert segment.decision == Decision(by=ALL, lessons=1)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_checkpoint_keeps_what_cannot_be_computed_again(features, weighted):
    choice = choice_of(window_of(), 2, 2)
    choice = replace(choice, decision=replace(choice.decision, features=features))
    if not weighted:
        choice = replace(choice, weights=np.ones_like(choice.weights))
    kept = segment_of([[0] * 12], [[0] * 12], [], [LESSON], choice).chosen
    assert kept.decision == choice.decision
    np.testing.assert_array_equal(kept.kept, choice.kept)
    assert (kept.weights is not None) == weighted and (kept.places is not None) == features
    if weighted:
        assert kept.weights.dtype == np.float16
        np.testing.assert_array_equal(kept.weights, choice.weights)
    if features:
        assert kept.places.dtype == np.int32
        np.testing.assert_array_equal(kept.places, choice.places)
