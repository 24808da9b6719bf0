"""Sorted batches, cut micro-batch by micro-batch. Oracle: the plain run without micro-batches."""

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import Algorithm, Callback, Event
from composer.metrics.nlp import LanguageCrossEntropy
from fits import VOCAB, make_model, write

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.arrange.sort import Rows
from attent_stream.corpus.chat_batches import ChatCollator
from attent_stream.effects.trimmed import share
from attent_stream.launch.hf_model import wrapped

COUNT, BATCH = 40, 8
SORTED = {"keep": 1.0, "arrange": {"sort": "length"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    rng = np.random.default_rng(5)
    columns, made = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}, []
    for _ in range(COUNT):
        ids = rng.integers(1, VOCAB, rng.integers(4, 24)).astype(np.int32)
        labels = np.where(np.arange(len(ids)) < rng.integers(1, 4), -100, ids)
        made.append({"input_ids": ids, "labels": labels.astype(np.int32)})
    return write(tmp_path_factory.mktemp("chats") / "set", columns, made)


class Widths(Callback):
    """Keeps batches, and the shapes and losses of micro-batches."""

    def __init__(self):
        self.widths, self.batches, self.losses = [], [], []

    def batch_start(self, state, logger):
        self.batches.append({name: value.clone() for name, value in state.batch.items()})

    def after_forward(self, state, logger):
        self.widths.append(tuple(state.batch["input_ids"].shape))

    def after_loss(self, state, logger):
        self.losses.append(float(state.loss))


def train(folder, algorithms, micro, workers=0, model=None, collate=None, **trainer):
    dataset = TeachingDataset(
        local=folder, batch_size=BATCH, window=2, gap=1, shuffle=True, num_canonical_nodes=1
    )
    loader = TeachingDataLoader(
        dataset, batch_size=BATCH, collate_fn=collate or ChatCollator(), num_workers=workers
    )
    model, seen = model or make_model(), Widths()
    made = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=algorithms,
        callbacks=[seen],
        device="cpu",
        device_train_microbatch_size=micro,
        progress_bar=False,
        **trainer,
    )
    made.fit()
    return made, [weight.detach().clone() for weight in model.parameters()], seen


@pytest.mark.parametrize(("micro", "workers"), [(1, 0), (2, 0), (3, 1), (8, 0)])
@pytest.mark.parametrize("by_tokens", [False, True])
def test_steps_are_those_of_whole_batches(folder, micro, workers, by_tokens):
    _, plain, whole = train(folder, [], BATCH)
    _, found, seen = train(
        folder, [AtteNT(**SORTED)], micro, workers, accumulate_train_batch_on_tokens=by_tokens
    )
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    for before, after in zip(whole.batches, seen.batches, strict=True):
        order = np.argsort(-before["attention_mask"].sum(1).numpy(), kind="stable")
        assert {name: value[order].tolist() for name, value in before.items()} == {
            name: value.tolist() for name, value in after.items()
        }
    positions = [sum(rows * width for rows, width in run.widths) for run in (whole, seen)]
    assert positions[1] < (0.9 if micro < 4 else 1.01) * positions[0]


class SomeWithoutLabels(ChatCollator):
    """Short samples have no label."""

    def __call__(self, samples):
        batch = super().__call__(samples)
        batch["labels"][batch["attention_mask"].sum(1) < 10] = -100
        return batch


def test_no_micro_batch_is_without_labels(folder):
    """Its loss would be NaN. The shortest two of eight are in one micro-batch if they are sorted,
    but seldom if they are not.
    """
    for added in ([], [AtteNT(**SORTED)]):
        _, _, seen = train(folder, added, 4, collate=SomeWithoutLabels())
        assert np.isfinite(seen.losses).all()


class Turns(Algorithm):
    """Puts the rows of each batch into another order."""

    def match(self, event, state):
        return event is Event.BATCH_START

    def apply(self, event, state, logger):
        state.batch = {name: value.flip(0) for name, value in state.batch.items()}


class Drops(Turns):
    """Drops rows."""

    def apply(self, event, state, logger):
        state.batch = {name: value[2:] for name, value in state.batch.items()}


@pytest.mark.parametrize("changes", [Turns, Drops])
def test_a_batch_that_was_changed_is_trained_on_whole(folder, changes):
    _, _, seen = train(folder, [AtteNT(**SORTED), changes()], 2)
    of_batches = [batch["input_ids"].shape[1] for batch in seen.batches]
    assert len({width for _, width in seen.widths}) == len(set(of_batches))
    assert sum(width for _, width in seen.widths) == sum(
        width * -(-len(batch["input_ids"]) // 2)
        for width, batch in zip(of_batches, seen.batches, strict=True)
    )


def test_composers_train_metrics_see_as_many_positions_as_labels(folder):
    def measured():
        model = wrapped(
            make_model().model,
            tokenizer=None,
            use_logits=True,
            metrics=[LanguageCrossEntropy()],
            shift_labels=True,
        )
        model.train_metrics = {"loss": LanguageCrossEntropy()}
        return model

    runs = [
        train(folder, algorithms, 2, model=measured())[0] for algorithms in ([], [AtteNT(**SORTED)])
    ]
    plain, found = (float(run.state.train_metrics["loss"].compute()) for run in runs)
    # The metric of the last batch, which both runs take with nearly the same weights
    assert found == pytest.approx(plain, rel=0.01)


def test_losses_are_remembered_of_the_samples_they_belong_to(folder):
    def remembered(**given):
        seen = AtteNT(keep=1.0, remember="always", **given)
        train(folder, [seen], 2)
        return seen.fit.teacher.ledger.recall(np.arange(COUNT))

    plain, found = remembered(arrange={}), remembered(arrange={"sort": "length"})
    np.testing.assert_allclose(found, plain, rtol=0.02)


def test_the_share_of_a_micro_batch():
    rows = Rows(
        order=np.arange(4), lengths=np.array([9, 8, 4, 1]), labels=np.array([6, 4, 2, 0]), width=9
    )
    assert share(rows, 0, 2) == pytest.approx(10 / 12)
    assert share(rows, 2, 4) == pytest.approx(2 / 12)
    assert share(rows, 0, 4) == 1
    nothing = Rows(order=np.arange(2), lengths=np.ones(2), labels=np.zeros(2), width=1)
    assert share(nothing, 0, 1) == 0.5
