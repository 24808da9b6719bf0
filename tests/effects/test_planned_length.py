"""How long an epoch is told to be. Oracle: the batches that there were."""

import pytest
from composer import Callback
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader

from attent_stream import AtteNT


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)


def test_epoch_length_is_told(folder):
    loader = make_loader(folder)
    _, _, trainer = fit(loader, [AtteNT(select="hard", keep=0.5)], max_duration="2ep")
    per_epoch = 4 + 5 * 2 + 1
    assert int(trainer.state.dataloader_len) == per_epoch
    assert int(trainer.state.timestamp.batch) == 2 * per_epoch


def test_a_subset_that_was_asked_for_stays(folder):
    watch, _, trainer = fit(
        make_loader(folder),
        [AtteNT(select="hard", keep=0.5)],
        max_duration="2ep",
        train_subset_num_batches=9,
    )
    assert len(watch.losses) == int(trainer.state.timestamp.batch) == 18
    assert int(trainer.state.dataloader_len) == 9


@pytest.mark.parametrize("at", [3, 7, 20])
def test_a_resumed_epoch_is_told_as_long_as_before(folder, tmp_path, at):
    def lengths(**kwargs):
        told = []

        class Told(Callback):
            def batch_start(self, state, logger):
                told.append(int(state.dataloader_len))

        algorithm = AtteNT(select="hard", keep={"schedule": "linear", "from": 0.2, "to": 1.0})
        fit(make_loader(folder), [algorithm], max_duration="2ep", callbacks=[Told()], **kwargs)
        return told

    saving = {"save_folder": str(tmp_path), "save_interval": "1ba", "save_filename": "ba{batch}.pt"}
    whole = lengths(**saving)
    assert len(set(whole)) == 2  # an epoch's length stays
    assert lengths(load_path=str(tmp_path / f"ba{at}.pt")) == whole[at:]


def test_what_was_told_is_in_the_state(folder):
    algorithm = AtteNT(select="hard", keep=0.5)
    fit(make_loader(folder), [algorithm], max_duration="1ep")
    assert algorithm.fit.length.state_dict()["told"] == algorithm.fit.length.told == 15
