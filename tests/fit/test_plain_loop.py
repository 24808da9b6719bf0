"""A loop without Composer trains on what a Trainer with AtteNT trains on."""

import numpy as np
import pytest
import torch
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_loader, make_model, make_rotary

from attent_stream import AtteNT, TeachingLoop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("data"), 160, length=LENGTH, vocab=VOCAB)


def high(batch) -> torch.Tensor:
    """A score that asks no model."""
    return batch["input_ids"].float().mean(1)


SETTINGS = {
    "default": {},
    "scored": {"keep": 0.5, "score": high, "select": "hard"},
    "soft": {"keep": 0.6, "score": high, "select": "soft", "seed": 5, "warmup": "0.2dur"},
    "random": {"keep": 0.5, "select": "random", "arrange": {"balance": "tokens"}},
    "pieces": {"keep": 0.5, "score": high, "arrange": {"pieces": 0.5}},
}


def rows(loop: TeachingLoop) -> list:
    return [batch["input_ids"].tolist() for batch in loop]


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_on_what_a_trainer_trains_on(folder, name):
    steps = 30 if name == "default" else 60  # one pass, and more
    given = SETTINGS[name]
    own = dict(given)
    if "score" in own:
        own["score"] = lambda model, batch: high(batch)
    watch, _, _ = fit(
        make_loader(folder), [AtteNT(**own)], make_rotary(), max_duration=f"{steps}ba"
    )
    found = rows(TeachingLoop(make_loader(folder), steps=steps, **given))
    assert found == watch.tokens and len(found) == steps


@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_on_after_any_batch(folder, name):
    whole, states = [], []
    loop = TeachingLoop(make_loader(folder), steps=50, **SETTINGS[name])
    for batch in loop:
        whole.append(batch["input_ids"].tolist())
        states.append(loop.state_dict())
    for at in (0, 6, 19, 37, 48):
        again = TeachingLoop(make_loader(folder), steps=50, **SETTINGS[name])
        again.load_state_dict(states[at])
        assert rows(again) == whole[at + 1 :], at


def test_workers_change_nothing(folder):
    alone = rows(TeachingLoop(make_loader(folder), steps=45, **SETTINGS["scored"]))
    workers = TeachingLoop(make_loader(folder, num_workers=2), steps=45, **SETTINGS["scored"])
    assert rows(workers) == alone


def test_it_tells_what_it_does_and_gives_weights(folder):
    loop = TeachingLoop(make_loader(folder), steps=30)
    assert loop.told.startswith("packed text seen once: nothing is dropped, short pieces")
    given = {"keep": 0.5, "score": high, "select": "unbiased"}
    loop, seen = TeachingLoop(make_loader(folder), steps=30, **given), []
    assert loop.weights is None
    for _ in loop:
        seen.append(loop.weights)
    weighted = [one for one in seen if one is not None]
    assert weighted and all(len(one) == BATCH and (one > 0).all() for one in weighted)


def test_a_model_is_trained_by_it(folder):
    torch.manual_seed(0)
    model = make_model().model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for batch in TeachingLoop(make_loader(folder), steps=40):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"score": "loss"}, "score must be a function of a batch, got 'loss'"),
        ({"remember": "always"}, "remember needs Composer"),
        ({"target": "/x"}, "target needs Composer"),
        ({"scoring": {"ceiling": 0.1}}, "scoring needs Composer"),
        ({"keep": 0.5}, "select needs a score"),
        ({"keep": 2.0}, "keep"),
    ],
)
def test_what_it_cannot_do_is_told(folder, given, reason):
    with pytest.raises(ValueError, match=reason):
        TeachingLoop(make_loader(folder), **{"steps": 20, **given})
