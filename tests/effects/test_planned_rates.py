"""Learning rates of runs in epochs that teaching shortens. Oracle: the same schedule over the
batches that there were.
"""

import numpy as np
import pytest
import torch
from composer import Callback, Trainer
from composer.optim import CosineAnnealingWithWarmupScheduler
from corpora import write_tokens
from fits import LENGTH, VOCAB, make_loader, make_model

from attent_stream import AtteNT

EPOCHS, SAMPLES = 3, 240


class Rates(Callback):
    """The learning rate of each batch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def batch_start(self, state, logger):
        self.seen.append(state.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", SAMPLES, length=LENGTH, vocab=VOCAB)


def train(folder, algorithms, epochs=EPOCHS, close=True, **kwargs):
    model, rates = make_model(), Rates()
    trainer = Trainer(
        model=model,
        train_dataloader=make_loader(folder),
        optimizers=torch.optim.SGD(model.parameters(), lr=1.0),
        schedulers=CosineAnnealingWithWarmupScheduler(t_warmup="0.1dur", alpha_f=0.0),
        max_duration=f"{epochs}ep",
        algorithms=algorithms,
        callbacks=[rates],
        progress_bar=False,
        seed=1,
        **kwargs,
    )
    trainer.fit()
    if close:
        trainer.close()
    return rates.seen, trainer


def over(batches: int) -> np.ndarray:
    """The schedule, over so many; Composer's schedulers step before it counts the batch, so each
    rate comes one late.
    """
    at, warmup = np.maximum(np.arange(batches) - 1, 0), int(0.1 * batches)
    return np.where(
        at < warmup, at / warmup, 0.5 * (1 + np.cos(np.pi * (at - warmup) / (batches - warmup)))
    )


@pytest.mark.parametrize(
    ("settings", "shorter"),
    [
        ({"keep": 1.0, "select": "random"}, False),
        ({"keep": 0.5, "select": "random", "warmup": "1ep", "anneal": "0.2dur"}, True),
        ({"keep": 0.4, "select": "soft"}, True),
        # What the default teaches cannot be told to the Trainer as the epoch's length, and is
        # planned all the same
        ({}, True),
        ({"keep": 0.5, "score": "remembered", "select": "hard"}, True),
        ({"interval": "1ep"}, False),  # nothing is remembered for as long as an epoch
    ],
)
def test_rates_are_over_the_batches_that_there_are(folder, settings, shorter):
    rates, trainer = train(folder, [AtteNT(**settings)])
    batches = len(rates)
    assert batches == trainer.state.timestamp.batch and (batches < EPOCHS * SAMPLES // 4) == shorter
    # A window is known only once it is chosen
    np.testing.assert_allclose(rates, over(batches), atol=0.04 if shorter else 1e-12)
    assert rates[-1] < 0.01 and min(rates[2:]) > 0


def test_a_fit_leaves_the_schedulers_as_they_were(folder):
    _, trainer = train(folder, [AtteNT(keep=0.5, select="random")])
    (scheduler,) = trainer.state.schedulers
    assert [rate.__name__ for rate in scheduler.lr_lambdas] == ["scheduler_fn"]


def test_many_windows_and_a_small_share(folder, monkeypatch):
    """The first window alone is kept whole, however many windows one look at an epoch
    stands for.
    """
    monkeypatch.setattr("attent_stream.teach.lengths._LOOKS", 3)
    rates, _ = train(folder, [AtteNT(keep=0.25, select="hard")])
    np.testing.assert_allclose(rates, over(len(rates)), atol=1e-9)


def test_a_longer_run_is_planned_anew(folder, tmp_path):
    """Where a checkpoint is gone on from for more epochs than were planned."""
    train(
        folder,
        [AtteNT()],
        save_folder=str(tmp_path),
        save_interval="3ba",
        save_filename="ba{batch}.pt",
    )
    rates, trainer = train(
        folder, [AtteNT()], epochs=2 * EPOCHS, load_path=str(tmp_path / "ba99.pt")
    )
    batches = int(trainer.state.timestamp.batch)
    np.testing.assert_allclose(rates[1:], over(batches)[100:], atol=0.04)


def test_what_is_not_remembered_is_not_planned_to_be(folder):
    """A second fit after a single pass, of which nothing was kept: its first epoch is whole."""
    _, trainer = train(folder, [AtteNT()], epochs=1, close=False)
    trainer.fit(duration="2ep")
    trainer.close()
    (rates,) = (
        callback.seen for callback in trainer.state.callbacks if isinstance(callback, Rates)
    )
    np.testing.assert_allclose(
        rates[SAMPLES // 4 + 1 :], over(len(rates))[SAMPLES // 4 + 1 :], atol=0.04
    )


@pytest.mark.parametrize("at", [3, pytest.param(72, marks=pytest.mark.slow), 99])
def test_a_resumed_run_has_the_same_rates(folder, tmp_path, at):
    """Also where more is remembered by then than when the epoch was planned."""
    whole, _ = train(
        folder,
        [AtteNT()],
        save_folder=str(tmp_path),
        save_interval="3ba",
        save_filename="ba{batch}.pt",
    )
    rates, _ = train(folder, [AtteNT()], load_path=str(tmp_path / f"ba{at}.pt"))
    assert rates == whole[at:]
