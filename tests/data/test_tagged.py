"""What a worker makes of a step's batch. Oracle: the arrangements called by hand."""

import numpy as np
import pytest
import torch

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.cutting import together
from attent_stream.arrange.features import FEATURES
from attent_stream.data.tagged import Task
from attent_stream.score.ngrams import ngram_ids
from attent_stream.window.decision import ALL, SCORED, Decision

BOTH = Arrangements.parse({"pieces": 0.5, "balance": "tokens"})
TEXT = {"input_ids": torch.arange(32).reshape(4, 8)}


def task(notes: dict, **more) -> Task:
    decision = BOTH.noted(Decision(by=ALL, lessons=0), notes.items())
    return Task(arrangements=BOTH, decision=decision, **more)


def test_lessons_in_pieces_are_put_together():
    pieces = [1, 0, 0, 1]
    batch, features = task({"pieces": 2, "balance": 1}, lesson=True).made(TEXT, pieces)
    assert features is None
    assert torch.equal(batch["input_ids"], together(TEXT, pieces, 2)["input_ids"])
    assert task({"pieces": 2}, lesson=True).units == 2


def test_whole_lessons_are_left_alone():
    made = task({"balance": 1}, lesson=True)
    assert made.units == 1
    assert made.made(TEXT, [0] * 4) == (TEXT, None)


@pytest.mark.parametrize("scored", [True, False])
def test_candidates_are_whole_and_have_the_features_of_their_pieces(scored):
    made = task({"pieces": 2, "balance": 1}, lesson=False, scored=scored)
    assert made.units == 1
    batch, features = made.made(TEXT, [0] * 4)
    assert batch is (TEXT if scored else None)
    halves = {"input_ids": TEXT["input_ids"].reshape(8, 4)}
    expected = FEATURES.get("tokens")(halves).reshape(4, -1)
    np.testing.assert_array_equal(features, expected.numpy())
    assert features.dtype == np.float16


def test_candidates_that_are_only_scored_have_no_features():
    by_scores = BOTH.noted(Decision(by=SCORED, lessons=2), {"pieces": 2}.items())
    made = Task(arrangements=BOTH, decision=by_scores, lesson=False)
    assert made.made(TEXT, [0] * 4) == (TEXT, None)


def test_a_view_takes_the_place_of_candidates_that_are_scored():
    both = BOTH.noted(Decision(by=SCORED, lessons=2), {"balance": 1}.items())
    made = Task(arrangements=BOTH, decision=both, lesson=False, view="ngrams")
    view, features = made.made(TEXT, [0] * 4)
    np.testing.assert_array_equal(view, ngram_ids(TEXT))
    assert features.shape == (4, 512)
    unscored = Task(arrangements=BOTH, decision=both, lesson=False, scored=False, view="ngrams")
    assert unscored.made(TEXT, [0] * 4)[0] is None
    lesson = Task(arrangements=BOTH, decision=both, lesson=True, view="ngrams")
    assert lesson.made(TEXT, [0] * 4) == (TEXT, None)
