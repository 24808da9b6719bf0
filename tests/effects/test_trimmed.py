"""Sorted batches, cut micro-batch by micro-batch. Oracles: the plain run without micro-batches, and
batches weighted by their tokens in a loop.
"""

import numpy as np
import pytest
import torch
from composer import DataSpec, Trainer
from composer.core import Algorithm, Callback, Event
from composer.metrics.nlp import LanguageCrossEntropy
from composer.models import HuggingFaceModel
from fits import VOCAB, make_model, make_rotary, write
from torch.nn import functional as F

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.chat_batches import ChatCollator
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
        loss = state.loss
        self.losses.append(float(loss["total"] if isinstance(loss, dict) else loss))


def train(
    folder,
    algorithms,
    micro,
    workers=0,
    model=None,
    collate=None,
    spec=None,
    callbacks=(),
    **trainer,
):
    dataset = TeachingDataset(
        local=folder, batch_size=BATCH, window=2, gap=1, shuffle=True, num_canonical_nodes=1
    )
    loader = TeachingDataLoader(
        dataset, batch_size=BATCH, collate_fn=collate or ChatCollator(), num_workers=workers
    )
    model, seen = model or make_model(), Widths()
    made = Trainer(
        model=model,
        train_dataloader=DataSpec(loader, **spec) if spec else loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=algorithms,
        callbacks=[seen, *callbacks],
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
    """Micro-batches of one sample keep Composer's weights: those of plain training."""
    _, plain, whole = train(folder, [], BATCH if micro > 1 else 1)
    _, found, seen = train(
        folder, [AtteNT(**SORTED)], micro, workers, accumulate_train_batch_on_tokens=by_tokens
    )
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    for before, after in zip(whole.batches, seen.batches, strict=True):
        order = np.argsort(-before["attention_mask"].sum(1).numpy(), kind="stable")
        order = order if micro < BATCH else np.arange(BATCH)
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


class Checks(Callback):
    """Compares outputs with labels where plain training can."""

    def after_backward(self, state, logger):
        assert state.outputs["logits"].shape[:2] == state.batch["labels"].shape


def test_outputs_fit_the_batch_after_its_backward(folder):
    model = make_model()
    model.train_metrics = {"loss": LanguageCrossEntropy()}
    train(folder, [AtteNT(**SORTED)], 2, model=model, callbacks=[Checks()])


def short_first(batch, size):
    order = batch["attention_mask"].sum(1).argsort()
    return [{n: v[rows] for n, v in batch.items()} for rows in order.split(size)]


def square_mask(batch):
    mask = batch["attention_mask"]
    return {**batch, "attention_mask": (mask[:, None, :, None] * mask[:, None, None, :]).bool()}


class OfSamples(HuggingFaceModel):
    """Its loss is the mean over samples."""

    def loss(self, outputs, batch):
        each = [
            F.cross_entropy(logits[:-1], labels[1:])
            for logits, labels in zip(outputs["logits"], batch["labels"], strict=True)
        ]
        return torch.stack(each).mean()


class InParts(HuggingFaceModel):
    """Its loss has two terms."""

    def loss(self, outputs, batch):
        loss = super().loss(outputs, batch)
        return {"total": loss, "language": loss.detach()}


class Views(HuggingFaceModel):
    """It needs contiguous labels."""

    def forward(self, batch):
        batch["labels"].view(-1)
        return super().forward(batch)


class Needs300(HuggingFaceModel):
    """It takes one width only."""

    def forward(self, batch):
        assert batch["input_ids"].shape[1] == 300
        return super().forward(batch)


class To300(ChatCollator):
    """Pads to one width."""

    def __call__(self, samples):
        batch = super().__call__(samples)
        more = 300 - batch["input_ids"].shape[1]
        fills = {"labels": -100}
        return {n: F.pad(v, (0, more), value=fills.get(n, 0)) for n, v in batch.items()}


@pytest.mark.parametrize(
    ("kind", "spec", "collate"),
    [
        (HuggingFaceModel, {"split_batch": short_first}, None),
        (OfSamples, {}, None),
        (InParts, {}, None),
        (Needs300, {}, To300()),
    ],
)
def test_by_default_it_is_plain_training_where_it_cannot_be_the_same(folder, kind, spec, collate):
    def run(algorithms):
        made = make_rotary()
        model = kind(made.model, tokenizer=None, use_logits=True, shift_labels=True)
        given = {"model": model, "spec": spec, "collate": collate}
        return train(folder, algorithms, 2, **given)[1:]

    (plain, before), (found, after) = run([]), run([AtteNT(arrange=None, remember="never")])
    if kind in (OfSamples, InParts) or spec:  # batches are grouped, but not sorted
        assert [len(b["labels"]) for b in before.batches] == [
            len(b["labels"]) for b in after.batches
        ]
        assert sum(n * w for n, w in after.widths) < sum(n * w for n, w in before.widths)
        lengths = [batch["attention_mask"].sum(1) for batch in after.batches]
        assert any((one[1:] > one[:-1]).any() for one in lengths)
    else:
        torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "spec"), [(Views, {}), (HuggingFaceModel, {"microbatch_transforms": square_mask})]
)
def test_what_a_model_or_transform_needs_is_kept(folder, kind, spec):
    def model():
        return kind(make_rotary().model, tokenizer=None, use_logits=True, shift_labels=True)

    _, plain, _ = train(folder, [], BATCH, model=model(), spec=spec)
    _, found, _ = train(folder, [AtteNT(**SORTED)], 2, model=model(), spec=spec)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        (OfSamples, {}, "the mean over their tokens is"),
        (HuggingFaceModel, {"split_batch": short_first}, "split_batch"),
    ],
)
def test_asked_for_by_name_it_is_refused_before_the_first_step(folder, kind, spec, message):
    model = kind(make_rotary().model, tokenizer=None, use_logits=True, shift_labels=True)
    with pytest.raises(ValueError, match=message):
        train(folder, [AtteNT(**SORTED)], 2, model=model, spec=spec)


@pytest.mark.parametrize(("micro", "sort"), [(8, {}), (2, {"sort": "length"})])
def test_grouped_batches_weigh_as_much_as_their_tokens(folder, micro, sort):
    """Oracle: SGD by hand on the same batches."""
    given = {"keep": 1.0, "arrange": {"group": "length", **sort}}
    _, found, seen = train(folder, [AtteNT(**given)], micro)
    model, rows, tokens = make_model(), 0, 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in seen.batches:
        count = int((batch["labels"][:, 1:] != -100).sum())
        rows, tokens = rows + len(batch["labels"]), tokens + count
        loss = model.loss(model(batch), batch) * count / (tokens / rows * len(batch["labels"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(found, list(model.parameters()), rtol=1e-4, atol=1e-6)


def test_it_resumes_in_the_middle_of_an_epoch(folder, tmp_path):
    def run(**trainer):
        made, weights, seen = train(
            folder, [AtteNT(remember="never")], 2, model=make_rotary(), seed=1, **trainer
        )
        return weights, [batch["input_ids"].tolist() for batch in seen.batches]

    whole, batches = run(save_folder=str(tmp_path), save_interval="1ba")
    for begin in (2, 7):
        path = next(tmp_path.glob(f"*ba{begin}-rank0.pt"))
        found, rest = run(load_path=str(path))
        assert rest == batches[begin:]
        torch.testing.assert_close(found, whole, rtol=0, atol=0)


class FewerLabels(Callback):
    """Takes labels away after AtteNT."""

    def batch_start(self, state, logger):
        labels = state.batch["labels"].clone()
        labels[:, : labels.shape[1] // 3] = -100
        state.batch = {**state.batch, "labels": labels}


class Pops(HuggingFaceModel):
    """It takes the labels out of its batch."""

    def forward(self, batch):
        found = super().forward(batch)
        batch.pop("labels")
        return found


def test_tokens_are_counted_as_they_are_trained_on(folder):
    fewer = {"callbacks": [FewerLabels()]}
    _, plain, _ = train(folder, [], BATCH, **fewer)
    _, found, _ = train(folder, [AtteNT(**SORTED)], 2, **fewer)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)

    def pops():
        return Pops(make_rotary().model, tokenizer=None, use_logits=True, shift_labels=True)

    _, plain, _ = train(folder, [], BATCH, model=pops())
    _, found, _ = train(folder, [AtteNT(**SORTED)], 2, model=pops())
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


class MemoryRunsOut(Callback):
    """Memory is enough for two samples."""

    def fit_start(self, state, logger):
        state.auto_microbatching = True  # Composer's own check needs a GPU

    def after_forward(self, state, logger):
        if len(state.batch["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")


def test_a_batch_that_is_tried_again_is_cut_and_weighted_as_before(folder):
    _, plain, _ = train(folder, [], BATCH)
    _, found, seen = train(folder, [AtteNT(**SORTED)], BATCH, callbacks=[MemoryRunsOut()])
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    assert [rows for rows, _ in seen.widths[:6]] == [8, 4, 2, 2, 2, 2]
    assert seen.widths[5][1] < seen.widths[2][1]
