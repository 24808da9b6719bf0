"""Learnability, against both losses by hand and a resumed run."""

import copy

import numpy as np
import pytest
import torch
from corpora import write_tokens
from fits import LENGTH, VOCAB, Watch, fit, make_loader, make_model
from token_losses import text, token_losses

from attent_stream import AtteNT
from attent_stream.base.errors import ScoreError
from attent_stream.base.span import Clock, Span
from attent_stream.experimental.learnability import Reference, ReferenceSettings

CPU = torch.device("cpu")
SNAPSHOT = {"scoring": {"reference": {"snapshot": "5ba"}}}


def losses(model, batch) -> np.ndarray:
    with torch.no_grad():
        sums, counts = token_losses(model(batch), batch)
    return (sums / counts).numpy()


def at(ba: float) -> Clock:
    return Clock(ep=0, ba=ba, sp=0, tok=0, dur=0)


def moved(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)


def test_a_snapshot_is_the_learner_as_it_was():
    learner = make_model().eval()
    reference = Reference(ReferenceSettings(snapshot=Span.parse("10ba")), learner, CPU)
    first = losses(learner, text())
    moved(learner)
    reference.window_chosen(at(9))
    np.testing.assert_allclose(reference.losses(text(), 2), first, rtol=1e-5)
    reference.window_chosen(at(12))
    second = losses(learner, text())
    assert not np.allclose(first, second)
    np.testing.assert_allclose(reference.losses(text(), 2), second, rtol=1e-5)
    moved(learner)
    reference.window_chosen(at(19))  # the next is due at 20
    np.testing.assert_allclose(reference.losses(text(), 2), second, rtol=1e-5)
    again = Reference(ReferenceSettings(snapshot=Span.parse("10ba")), learner, CPU)
    again.load_state_dict(copy.deepcopy(reference.state_dict()))
    again.window_chosen(at(19))
    np.testing.assert_allclose(again.losses(text(), 2), second, rtol=1e-5)


def test_a_model_given(tmp_path):
    learner, other = make_model(), make_model(seed=5)
    reference = Reference(ReferenceSettings(model=other), learner, CPU)
    np.testing.assert_allclose(reference.losses(text(), 5), losses(other, text()), rtol=1e-5)
    assert not reference.state_dict() and not any(
        parameter.requires_grad for parameter in other.parameters()
    )
    with pytest.raises(
        ScoreError,
        match="reference.model: expected a folder with a Hugging Face model, received '/nowhere'",
    ):
        Reference(ReferenceSettings(model="/nowhere"), learner, CPU)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "'learnability' and scoring.reference do not go together"),
        ({"score": "loss", **SNAPSHOT}, "'loss' and scoring.reference do not go together"),
        (
            {"scoring": {"reference": {"snapshot": "0ba"}}},
            "reference.snapshot must be a time above 0, got 0ba",
        ),
        (
            {"scoring": {"reference": {"snapshot": "5ba", "model": "x"}}},
            "one of model and snapshot, got both",
        ),
        (
            {"scoring": {"reference": {"model": {"name": "hf_causal_lm"}}}},
            "must be a folder or a ComposerModel, got dict",
        ),
        (
            {"scoring": {"reference": "x"}},
            "reference must be {model: folder} or {snapshot: time}, got 'x'",
        ),
        ({"remember": "always", **SNAPSHOT}, "remember.when='always' needs a score"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(ValueError, match=says.replace("{", r"\{")):
        AtteNT(**{"score": "learnability"} | arguments)


def test_a_taught_run_is_resumed_bit_for_bit(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    kwargs = {
        "score": "learnability",
        "scoring": {"reference": {"snapshot": "4ba"}},
        "select": "hard",
        "keep": 0.5,
    }
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole, memory, _ = fit(
        make_loader(folder, 3),
        [AtteNT(**kwargs)],
        make_model(0.1),
        max_duration="1ep",
        seed=1,
        **saving,
    )
    assert isinstance(whole, Watch) and memory.data["attent/candidates"][-1][1] > 0
    path = str(next((tmp_path / "saved").glob("ep0-ba7-rank0.pt")))
    rest, _, _ = fit(
        make_loader(folder, 3),
        [AtteNT(**kwargs)],
        make_model(0.1, 9),
        max_duration="1ep",
        seed=8,
        load_path=path,
    )
    assert rest.tokens == whole.tokens[7:] and rest.losses == whole.losses[7:]
