"""The weights of lessons in a taught run. Oracles: the run written out, with the loss weighted by
hand; a run never stopped.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer import Callback, Trainer
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, make_model
from fits import make_loader as make_token_loader
from loaders import ids_data
from taught import make_loader
from token_losses import token_losses

from attent_stream import AtteNT
from attent_stream.effects.lesson_weights import LessonWeights


class Recorded(Callback):
    """Batches and weights as they are trained with."""

    def __init__(self) -> None:
        self.steps = []

    def before_train_batch(self, state, logger):
        batch = {name: value.clone() for name, value in state.batch.items()}
        self.steps.append((batch, state.train_dataloader.epoch.lesson[1].copy()))


def test_a_taught_run_trains_on_its_weights(tmp_path):
    """Oracle: the run written out, with the loss weighted by hand."""
    loader = make_token_loader(
        write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB), window=3
    )
    model, recorded = make_model().double(), Recorded()
    taught = AtteNT(
        keep=0.7, score="loss", select="prune", interval="1dur", warmup="1ep", remember="always"
    )
    Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=[taught],
        callbacks=[recorded],
        progress_bar=False,
        device_train_microbatch_size=3,
    ).fit()
    weights = [weights for _, weights in recorded.steps]
    assert len({len(w) for w in weights}) == 1 and any(
        (w != 1).any() for w in weights[len(weights) // 2 :]
    )
    expected = make_model().double()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for batch, weight in recorded.steps:
        optimizer.zero_grad()
        for begin in range(0, BATCH, 3):
            part = {name: value[begin : begin + 3] for name, value in batch.items()}
            sums, counts = token_losses(expected(part), part)
            losses = torch.from_numpy(weight[begin : begin + 3]).double() * sums
            (losses.sum() / counts.sum() * len(sums) / BATCH).backward()
        optimizer.step()
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("select", ["prune", "unbiased"])
def test_weights_are_resumed(tmp_path, select):
    """From every lesson: the ids and weights that would have followed."""
    data = ids_data(tmp_path, 160, window=8, gap=2)
    teacher = {"select": select, "keep": 0.6}

    def steps(loader, states=None):
        made = []
        for batch in loader:
            loader.teach(lambda batch: batch["difficulty"])
            ids, weights = loader.epoch.lesson
            assert batch["id"].tolist() == ids.tolist()
            made.append((ids.tolist(), weights.tolist()))
            loader.teacher.clock.batches += 1
            if states is not None:
                states.append(loader.dataset.state_dict(4 * len(made), True))
        return made

    states = []
    whole = steps(make_loader(data, {}, teacher), states)
    assert len({w for _, weights in whole for w in weights}) > 2
    assert np.mean([w for _, weights in whole for w in weights]) == pytest.approx(1, abs=0.1)
    for done, state in enumerate(states[:-1], start=1):
        again = make_loader(data, {}, teacher)
        again.dataset.load_state_dict(state)
        again.teacher.clock.batches = done
        assert steps(again) == whole[done:]


class Outputs:
    """Keeps the weights that each batch begins with."""

    def __init__(self):
        self.begun = []

    def begin_batch(self, weights):
        self.begun.append(None if weights is None else weights.tolist())


@pytest.mark.parametrize(
    ("weights", "fault", "expected"),
    [
        ([0.5, 2.0], "", [0.5, 2.0]),
        ([1.0, 1.0], "", None),  # nothing to weight
        ([0.5, 2.0], "rows are not samples", None),
    ],
)
def test_a_batch_begins_with_its_weights(weights, fault, expected):
    epoch = SimpleNamespace(lesson=(np.arange(2), np.array(weights, np.float32)))
    loader, outputs = SimpleNamespace(epoch=epoch, fault=fault), Outputs()
    state = SimpleNamespace(device=SimpleNamespace(tensor_to_device=torch.clone))
    LessonWeights(loader, outputs, lambda: None).before_train_batch(state, None)
    loader.epoch = None  # a plain epoch
    LessonWeights(loader, outputs, lambda: None).before_train_batch(state, None)
    assert outputs.begun == [expected, None]
