"""Models whose logits are needed, and scores that turn out to be wrong."""

import re

import pytest
import torch
from head_models import build, text
from headless_models import Composed, Tiny, both, said
from ranks_fit import LENGTH, VOCAB

from attent_stream.base.errors import ScoreError
from attent_stream.score import head_call, headless
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


class Adapted(torch.nn.Linear):
    """A head with an adapter, which does nothing at initialization."""

    def forward(self, input):
        return super().forward(input) + 0.0 * input.sum()


def needs_all(logits):
    if logits.shape[1] != LENGTH:
        raise RuntimeError("shapes do not match")
    return logits


@pytest.mark.parametrize(
    "model, reason",
    [
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z * 1.02),
            "it changes its logits in an unknown way",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z.square()),
            "it changes its logits in an unknown way",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z[..., 1:]),
            "its logits have shape",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=needs_all),
            r"without all of its logits \(RuntimeError: shapes do not",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), calls=2),
            "calls its output embedding more than once",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), calls=1, after=None),
            "does not call its output embedding",
        ),
        (
            lambda: Tiny(Adapted(16, VOCAB)),
            "its output embedding is a Adapted with a forward of its own",
        ),
    ],
)
def test_models_that_need_their_logits(model, reason, caplog):
    model = model()
    if model.after is None:  # it names a head that it does not use
        model.after, model.head, unused = lambda z: z, None, model.head
        model.get_output_embeddings = lambda: unused
    if reason.startswith("its logits have"):
        batch = text()
        batch["labels"] = batch["labels"].clamp(max=VOCAB - 2)
        scorer = build_scorer("loss", Composed(model), head="reference")
        with pytest.raises(ScoreError, match="needs each rank to have all 61 classes' logits, got"):
            score_batch(scorer, Composed(model), batch, 2)
    else:
        want, got, scorer = both(Composed(model), text())
        assert torch.equal(got.nan_to_num(), want.nan_to_num())
        again = score_batch(scorer, Composed(model), text(), 2)
        assert torch.equal(again.nan_to_num(), want.nan_to_num())
    (message,) = said(caplog)
    assert message.startswith("Scoring computes all logits, as this model needs them: ")
    assert re.search(reason, message)


def test_a_scale_that_comes_later_is_found_out(monkeypatch, caplog):
    monkeypatch.setattr(headless, "_CHECK_EVERY", 4)
    model = Tiny(torch.nn.Linear(16, VOCAB))
    want, got, scorer = both(Composed(model), text(), size=5)
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    model.after = lambda logits: logits * 5
    for _ in range(3):
        score_batch(scorer, Composed(model), text(), 5)
    assert not said(caplog)
    want, _, _ = both(Composed(model), text(), size=5)
    caplog.clear()
    got = score_batch(scorer, Composed(model), text(), 5)
    assert torch.equal(got.nan_to_num(), want.nan_to_num()) and len(said(caplog)) == 1


def test_wrong_scores_are_found_out(monkeypatch, caplog):
    """By a path that computes nonsense, as a miscompiled kernel might."""
    right = head_call.head_scores
    monkeypatch.setattr(
        head_call,
        "head_scores",
        lambda *args, **given: tuple(s * 1.1 for s in right(*args, **given)),
    )
    want, got, _ = both(build("llama"), text(), score="loss")
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    assert "the reference path's scores differ by" in said(caplog)[0]
