"""Scores by a user's function."""

import functools

import pytest
import torch
from scored_models import INPUTS, linear

from attent_stream.base.errors import ScoreError
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


def squared_norm(model, batch):
    return model(batch).square().sum(-1)


def test_a_callable_scores_any_model():
    model = linear()
    batch = (INPUTS, torch.zeros(6))
    scorer = build_scorer(squared_norm, model)
    assert scorer.name == "squared_norm" and not scorer.reads_outputs
    scores = score_batch(scorer, model, batch, 4)
    torch.testing.assert_close(scores, model.module(INPUTS).detach().square().sum(-1))
    assert scores.dtype == torch.float32 and not scores.requires_grad
    assert build_scorer(functools.partial(squared_norm), model).name == "squared_norm"


@pytest.mark.parametrize(
    "score, message",
    [
        (lambda model, batch: model(batch), r"shape \(6,\), got torch.float32 of shape \(6, 5\)"),
        (
            lambda model, batch: model(batch).argmax(-1),
            r"float tensor of shape \(6,\), got torch.int64",
        ),
        (lambda model, batch: 1.0, r"must return a float tensor of shape \(6,\), got a float"),
        (lambda model, batch: model(batch).sum(), r"got torch.float32 of shape \(\)"),
    ],
)
def test_a_callables_result_is_checked(score, message):
    model = linear()
    with pytest.raises(ScoreError, match=message):
        score_batch(build_scorer(score, model), model, (INPUTS, torch.zeros(6)), 6)
