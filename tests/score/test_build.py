"""Building a scorer: names, callables, and what is refused."""

import pytest
import torch
from block_models import pair
from scored_models import INPUTS, linear

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.model.reading import CLASSES
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity
from attent_stream.score.microbatches import score_batch
from attent_stream.score.scores import Score


def test_an_unknown_score_lists_the_good_ones():
    for bad in ("residal", None, 3):
        with pytest.raises(
            ScoreError,
            match="score must be one of residual, loss, grad_norm, alignment, .* or a callable",
        ):
            build_scorer(bad, linear())


def test_a_callable_scores_by_itself():
    with pytest.raises(
        FidelityError, match="expected full for a score that is a callable, received layers_1"
    ):
        build_scorer(lambda model, batch: batch, pair("gpt2", 1)[0], fidelity=Fidelity(layers=1))


def test_a_users_own_score_is_imported(monkeypatch, tmp_path):
    """``module:name`` may be a function or a ``Score``."""
    (tmp_path / "own_scores.py").write_text(
        "from attent_stream.score.scores import Score\n"
        "def largest(model, batch): return model(batch).amax(1)\n"
        "LARGEST = Score(outputs={'classes': lambda z, y: z.amax(1)})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, batch = linear(), (INPUTS, torch.arange(6) % 5)
    expected = model.module(INPUTS).amax(1)
    function, score = (build_scorer(f"own_scores:{x}", model) for x in ("largest", "LARGEST"))
    assert function.name == "largest" and not function.reads_outputs and score.reads_outputs
    for scorer in (function, score):
        torch.testing.assert_close(score_batch(scorer, model, batch, 4), expected.detach())
    with pytest.raises(ScoreError, match="'own_scores:least' cannot be imported"):
        build_scorer("own_scores:least", model)


def test_a_score_of_outputs_alone_works_for_language_models(monkeypatch, tmp_path):
    model, _ = pair("gpt2", 1)
    score = Score(outputs={CLASSES: lambda z, y: z.amax((1, 2))})
    batch = {"input_ids": torch.arange(1, 9).reshape(2, 4), "labels": torch.ones(2, 4).long()}
    got = score_batch(build_scorer(score, model), model, batch, 2)
    with torch.no_grad():
        torch.testing.assert_close(got, model(batch)["logits"].amax((1, 2)))
