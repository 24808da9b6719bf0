"""Padded text: by default samples of similar length share a batch. Oracle: the plain run."""

import logging

import numpy as np
import pytest
import torch
from composer.core import Callback
from fits import VOCAB, fit, make_rotary, write

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.corpus.chat_batches import ChatCollator
from attent_stream.fit.arrange_faults import padding

COUNT, BATCH = 96, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    rng = np.random.default_rng(3)
    samples = [rng.integers(1, VOCAB, rng.integers(4, 24)) for _ in range(COUNT)]
    columns = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}
    made = [{name: ids.astype(np.int32) for name in columns} for ids in samples]
    return write(tmp_path_factory.mktemp("chats") / "set", columns, made)


def loader_of(folder: str, collate=None, **more) -> TeachingDataLoader:
    dataset = TeachingDataset(
        local=folder, batch_size=BATCH, window=8, gap=1, shuffle=True, num_canonical_nodes=1
    )
    return TeachingDataLoader(
        dataset, batch_size=BATCH, collate_fn=collate or ChatCollator(), **more
    )


class Widest(ChatCollator):
    """Pads to one width."""

    def __call__(self, samples):
        batch = super().__call__(samples)
        fill = {"labels": -100}
        wide = {
            name: value.new_full((len(value), 300), fill.get(name, 0))
            for name, value in batch.items()
        }
        for name, value in batch.items():
            wide[name][:, : value.shape[1]] = value
        return wide


class Before(ChatCollator):
    """Pads before samples."""

    def __call__(self, samples):
        batch = super().__call__(samples)
        order = torch.argsort(batch["attention_mask"], dim=1, stable=True)
        return {name: value.gather(1, order) for name, value in batch.items()}


class Fails(ChatCollator):
    """Takes whole batches only."""

    def __call__(self, samples):
        assert len(samples) == BATCH, "a batch has four samples"
        return super().__call__(samples)


@pytest.mark.parametrize("workers", [0, 1])
def test_by_default_less_is_padded_and_nothing_dropped(folder, workers, caplog):
    plain, _, _ = fit(loader_of(folder), [])
    with caplog.at_level(logging.INFO):
        taught, _, _ = fit(loader_of(folder, num_workers=workers), [AtteNT(remember="never")])
    (told,) = [one.getMessage() for one in caplog.records if "padded text" in one.getMessage()]
    assert told.endswith(
        "nothing is dropped, samples of a batch are of similar length, micro-batches are cut to "
        "their longest sample."
    )
    both = [[sorted(map(unpadded, batch)) for batch in run.tokens] for run in (plain, taught)]
    assert sorted(sum(both[0], [])) == sorted(sum(both[1], [])) and both[0] != both[1]
    widths = [sum(len(batch[0]) * len(batch) for batch in run.tokens) for run in (plain, taught)]
    assert widths[1] < 0.8 * widths[0]


def test_micro_batches_of_text_padded_to_one_width_are_cut(folder, caplog):
    def run(algorithms, micro):
        seen = Widths()
        _, _, trainer = fit(
            loader_of(folder, Widest()),
            algorithms,
            model=make_rotary(),
            callbacks=[seen],
            device_train_microbatch_size=micro,
        )
        return seen.positions, [w.detach().clone() for w in trainer.state.model.parameters()]

    whole, weights = run([], BATCH)
    with caplog.at_level(logging.INFO):
        cut, found = run([AtteNT(remember="never")], 2)
    (told,) = [one.getMessage() for one in caplog.records if "padded text" in one.getMessage()]
    assert told.endswith("nothing is dropped, micro-batches are cut to their longest sample.")
    assert cut < 0.15 * whole
    torch.testing.assert_close(found, weights, rtol=1e-4, atol=1e-6)


class Widths(Callback):
    """Counts the positions that are trained on."""

    positions = 0

    def after_forward(self, state, logger):
        self.positions += state.batch["input_ids"].numel()


class Doubles(ChatCollator):
    """Makes two rows of some samples."""

    def __call__(self, samples):
        return super().__call__(samples + samples[: len(samples) == BATCH])


def test_a_collate_function_that_makes_more_rows_does_not_end_a_run_by_default(folder):
    taught, _, _ = fit(loader_of(folder, Doubles()), [AtteNT(remember="never")])
    assert len(taught.losses) == COUNT // BATCH


def unpadded(row: list[int]) -> list[int]:
    return [token for token in row if token]


def test_what_is_padded_otherwise_is_left_alone(folder, tmp_path):
    assert padding(loader_of(folder)) == (True, True)
    assert padding(loader_of(folder, Widest())) == (False, True)
    assert padding(loader_of(folder, Before())) == (True, False)
    assert padding(loader_of(folder, Fails())) == (False, False)
    packed = write(
        tmp_path / "packed", {"tokens": "ndarray:int32"}, [{"tokens": np.ones(9, np.int32)}] * 32
    )
    assert padding(loader_of(packed, TokenCollator())) == (False, False)
