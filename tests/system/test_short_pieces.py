"""Training on short pieces of samples."""

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import Callback
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_model, make_rotary
from fits import make_loader as make_lm_loader
from torch.utils.data import DataLoader
from training import trained

from attent_stream import AtteNT
from attent_stream.corpus.batches import TokenCollator
from attent_stream.launch.data import CutTokens

SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
ALL = {"keep": 1.0, "select": "random"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 96, length=LENGTH, vocab=VOCAB)


def text(folder):
    return make_lm_loader(folder, window=8)


@pytest.mark.parametrize(
    "settings", [{"pieces": 0.25}, {"pieces": SHORT_FIRST, "balance": "tokens"}]
)
def test_it_is_training_on_the_pieces(folder, settings):
    """Oracle: stock Composer, given the batches that ours has at BATCH_START, one after
    the other.
    """
    watch, _, trainer = fit(text(folder), [AtteNT(**ALL, arrange=settings)], make_model())
    assert {len(batch) for batch in watch.tokens} == (
        {16} if settings["pieces"] == 0.25 else {16, 8, 4}
    )
    assert all(np.size(batch) == BATCH * LENGTH for batch in watch.tokens)
    stock = make_model()
    batches = [
        TokenCollator()([{"tokens": np.array(row)} for row in batch]) for batch in watch.tokens
    ]
    other = Trainer(
        model=stock,
        train_dataloader=DataLoader(batches, batch_size=None),
        optimizers=torch.optim.SGD(stock.parameters(), lr=0.1),
        max_duration="1ep",
        progress_bar=False,
        device_train_microbatch_size=4 * BATCH,
    )
    other.fit()
    for ours, wanted in zip(trainer.state.model.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


def test_samples_are_counted_as_ever(folder):
    _, _, trainer = fit(text(folder), [AtteNT(**ALL, arrange={"pieces": 0.25})], make_model())
    assert (
        int(trainer.state.timestamp.sample) == 96
        and trainer.state.device_train_microbatch_size == BATCH
    )


def test_microbatches_and_resumes_change_nothing(folder, tmp_path):
    settings = {
        "arrange": {"pieces": SHORT_FIRST, "balance": "tokens"},
        "score": "loss",
        "remember": "always",
        "select": "soft",
        "keep": 0.7,
    }
    run = {"duration": "2ep", "seed": 3, "microbatch": BATCH}
    whole = trained(make_model(0.1), text(folder), saved=str(tmp_path / "saved"), **settings, **run)
    for batch in (5, 20, 24, 30):
        load = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
        assert torch.equal(
            trained(make_model(0.1), text(folder), load=load, **settings, **run), whole
        ), batch
    whole, split = (
        trained(make_model(), text(folder), **settings, **run | {"microbatch": size})
        for size in (BATCH, 1)
    )
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)


def test_the_default_in_a_run(folder):
    """Packed text seen once: pieces at first. Padded, it is as it was."""
    once, _, _ = fit(text(folder), [AtteNT()], make_rotary())
    assert {len(batch) for batch in once.tokens} == {16, 8, 4}
    padded, _, _ = fit(
        make_lm_loader(folder, window=8, collate_fn=TokenCollator(pad_id=VOCAB)),
        [AtteNT()],
        make_model(),
    )
    plain, _, _ = fit(text(folder), [], make_model())
    assert padded.tokens == plain.tokens


def test_padding_ends_in_a_sentence(folder):
    loader = make_lm_loader(folder, window=8, collate_fn=TokenCollator(pad_id=1))
    # Before any worker is asked
    with pytest.raises(ValueError, match="arrange.pieces needs packed samples without padding"):
        fit(loader, [AtteNT(**ALL, arrange={"pieces": 0.5})], make_model())


def test_what_says_that_it_is_packed(folder):
    plain, padded = TokenCollator(), TokenCollator(pad_id=0)
    loaders = [
        make_lm_loader(folder, collate_fn=c)
        for c in (
            plain,
            padded,
            CutTokens(collate=plain, max_seq_len=8),
            CutTokens(collate=padded, max_seq_len=8),
            list,
        )
    ]
    assert [loader.packed for loader in loaders] == [True, False, True, False, False]


def test_a_fit_that_was_interrupted_leaves_the_microbatch_alone(folder):
    class Stop(Callback):
        stops = True

        def before_forward(self, state, logger):
            if int(state.timestamp.batch) == 2 and Stop.stops:
                Stop.stops = False
                raise KeyboardInterrupt

    model = make_model()
    trainer = Trainer(
        model=model,
        train_dataloader=text(folder),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="1ep",
        algorithms=[AtteNT(**ALL, arrange={"pieces": 0.25})],
        callbacks=[Stop(), sizes := Sizes()],
        progress_bar=False,
        device_train_microbatch_size=1,
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    assert set(sizes.seen) == {4} and trainer.state.device_train_microbatch_size == 1


class Sizes(Callback):
    """Rows of each microbatch."""

    def __init__(self):
        self.seen = []

    def before_forward(self, state, logger):
        self.seen.append(len(state.batch["input_ids"]))
