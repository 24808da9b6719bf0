"""Microbatches: scores do not depend on their size, and they shrink when memory runs out."""

import pytest
import torch
from scored_models import SCORES, language_model, text_batch

from attent_stream.base.errors import AttentError
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import MicrobatchScorer, score_batch


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
@pytest.mark.parametrize("score", SCORES)
def test_scores_do_not_depend_on_the_microbatch(name, score):
    model, batch = language_model(name), text_batch()
    scorer = build_scorer(score, model)
    whole = score_batch(scorer, model, batch, None)
    for size in (1, 2, 4, 5, 100):
        torch.testing.assert_close(
            score_batch(scorer, model, batch, size), whole, equal_nan=True, rtol=1e-5, atol=1e-6
        )


class Hungry:
    """Runs out of memory with more than ``most`` samples, as a scorer."""

    reads_outputs = False

    def __init__(self, most, message="CUDA out of memory"):
        self.most, self.message, self.sizes = most, message, []

    def scores(self, model, batch, draw=()):
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise RuntimeError(self.message)
        return batch.sum(1)


def test_microbatches_shrink_when_memory_runs_out(caplog):
    batch = torch.arange(18.0).reshape(9, 2)
    hungry = Hungry(2)
    scorer = MicrobatchScorer(hungry, torch.nn.Linear(2, 1))
    assert torch.equal(scorer(batch, 8), batch.sum(1))
    assert hungry.sizes == [8, 4, 2, 2, 2, 2, 1] and scorer.limit == 2
    assert "ran out of memory with 8 samples at once: 2 from now on" in caplog.text
    hungry.sizes.clear()
    scorer(batch, 8)
    assert max(hungry.sizes) == 2
    with pytest.raises(AttentError, match="with a single sample"):
        MicrobatchScorer(Hungry(0), torch.nn.Linear(2, 1))(batch, 8)
    with pytest.raises(RuntimeError, match="no such"):
        MicrobatchScorer(Hungry(0, "no such kernel"), torch.nn.Linear(2, 1))(batch, 8)
    sharded = MicrobatchScorer(Hungry(2), torch.nn.Linear(2, 1))
    sharded.sharded = True
    with pytest.raises(AttentError, match="all ranks of a sharded model must score alike"):
        sharded(batch, 8)
