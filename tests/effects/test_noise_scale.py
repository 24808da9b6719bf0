"""The noise scale of gradients is McCandlish's, from a step's own micro-batches or two steps."""

import numpy as np
import pytest
import torch
from composer.core import Callback, Event
from composer.models import ComposerModel
from fits import BATCH, LENGTH, VOCAB, fit, make_loader, make_model, write
from torch import nn

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.chat_batches import ChatCollator
from attent_stream.effects.noise_scale import _KEPT, EVERY

WIDTH, STEPS = 40, 200


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = np.random.default_rng(1)  # of few words, that are soon learnt
    tokens = np.minimum(rng.geometric(0.1, size=(160, LENGTH)), VOCAB - 1).astype(np.int32)
    columns = {"tokens": f"ndarray:int32:{LENGTH}"}
    return write(tmp_path_factory.mktemp("text"), columns, [{"tokens": row} for row in tokens])


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Vectors of mean 0.3 and variance 1, of which a sample's gradient is one."""
    rng = np.random.default_rng(0)
    samples = [
        {"input_ids": (rng.normal(size=WIDTH) + 0.3).astype(np.float32)} for _ in range(8 * STEPS)
    ]
    return write(
        tmp_path_factory.mktemp("known"), {"input_ids": f"ndarray:float32:{WIDTH}"}, samples
    )


class Gradients(Callback):
    """Keeps the gradient after each micro-batch of the steps that are measured."""

    def __init__(self) -> None:
        self.steps: list[list[torch.Tensor]] = []
        self.tokens: list[int] = []  # of each step's batch

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START:
            self.steps.append([])
            self.tokens.append(state.batch["input_ids"].numel())
        elif event == Event.AFTER_BACKWARD:
            grads = [p.grad.flatten() for p in state.model.parameters()]
            self.steps[-1].append(torch.cat(grads).double().clone())


def logged(memory) -> dict[int, float]:
    return {int(stamp.batch): value for stamp, value in memory.data.get("attent/noise_scale", [])}


def means(values: list[float]) -> float:
    mean = values[0]
    for value in values[1:]:
        mean = _KEPT * mean + (1 - _KEPT) * value
    return mean


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    rng = np.random.default_rng(2)
    ids = [
        np.minimum(rng.geometric(0.1, size=rng.integers(3, LENGTH)), VOCAB - 1).astype(np.int32)
        for _ in range(160)
    ]
    columns = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}
    return write(
        tmp_path_factory.mktemp("chats"), columns, [{"input_ids": i, "labels": i} for i in ids]
    )


@pytest.mark.parametrize(("micro", "sort"), [(1, False), (3, False), (BATCH, False), (2, True)])
def test_it_is_that_of_whole_gradients(text, chats, micro, sort):
    watch = Gradients()
    _, memory, _ = fit(
        make_loader(chats, collate_fn=ChatCollator()) if sort else make_loader(text),
        [AtteNT(keep=1, arrange={"sort": "length"} if sort else None)],
        callbacks=[watch],
        max_duration="2ep",
        device_train_microbatch_size=micro,
    )
    totals, signals = [], []
    for step in range(1, len(watch.steps), EVERY):
        parts, whole = watch.steps[step], watch.steps[step][-1]
        other, rest = watch.steps[step - 1][-1], whole
        if len(parts) > 1 and not sort:  # sorted micro-batches are not random parts
            share = micro / BATCH
            other, rest = parts[0] / share, (whole - parts[0]) / (1 - share)
        totals.append(float(whole @ whole))
        signals.append(float(other @ rest))
        total, signal = means(totals), means(signals)
        if len(totals) >= 4:
            expected = watch.tokens[step] * max(0, total - signal) / signal
            found = logged(memory).get(step + 1)
            assert (found is None) == (signal <= 0)
            assert found is None or found == pytest.approx(expected, rel=1e-3)
    assert len(totals) == 5 and logged(memory)


class Linear(ComposerModel):
    """Its gradient is the mean of a batch's vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, batch):
        return batch["input_ids"] @ self.weight

    def loss(self, outputs, batch):
        return outputs.mean()


@pytest.mark.parametrize("micro", [2, 8])
def test_it_is_the_variance_over_the_squared_mean(known, micro):
    dataset = TeachingDataset(local=known, batch_size=8, window=8, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=8)
    _, memory, _ = fit(
        loader, [AtteNT(keep=1)], Linear(), max_duration="8ep", device_train_microbatch_size=micro
    )
    values = list(logged(memory).values())
    truth = WIDTH / (WIDTH * 0.3**2) * WIDTH  # Composer counts a sample's ids as tokens
    # Each value is of the last ten pairs of batches or so.
    assert 0.6 * truth < np.median(values) < 1.7 * truth
    assert len(values) > 90


def test_a_resumed_run_goes_on_from_its_means(text, tmp_path):
    save = {"save_folder": str(tmp_path), "save_interval": "96ba", "save_overwrite": True}
    _, whole, _ = fit(make_loader(text), [AtteNT(keep=1)], make_model(), max_duration="4ep", **save)
    path = str(tmp_path / "ep2-ba96-rank0.pt")
    _, rest, _ = fit(make_loader(text), [AtteNT(keep=1)], max_duration="4ep", load_path=path)
    assert len(logged(rest)) >= 2
    assert logged(rest) == {at: logged(whole)[at] for at in logged(rest)}


def test_a_gradient_that_is_not_finite_is_left_out(text):
    class Sometimes(Linear):
        def forward(self, batch):
            self.calls = getattr(self, "calls", 0) + 1
            return (self.weight.sum() * 0 + self.weight[0]) * (
                float("nan") if self.calls == 34 else 1.0 + 0 * batch["input_ids"].sum()
            )

    _, memory, _ = fit(make_loader(text), [AtteNT(keep=1)], Sometimes(), max_duration="4ep")
    assert logged(memory) and np.isfinite(list(logged(memory).values())).all()
