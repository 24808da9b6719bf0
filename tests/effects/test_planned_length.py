"""How long an epoch is told to be. Oracle: the batches that there were."""

import pytest
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
