"""Training losses on their way into the ledger. Oracle: the losses of a float64 model, by hand."""

import numpy as np
import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader

from attent_stream import AtteNT


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)


def test_record_fills_the_ledger_from_the_training_forward(folder):
    """attent_simple: the first epoch's own losses, no scoring pass ever."""
    algorithm = AtteNT(
        select="hard", keep=0.5, score="loss", interval="1dur", warmup="1ep", remember="warmup"
    )
    watch, memory, trainer = fit(
        make_loader(folder, num_workers=2),
        [algorithm],
        max_duration="3ep",
        device_train_microbatch_size=3,
    )
    assert memory.data["attent/candidates"][-1][1] == 0
    assert len(watch.losses) == 25 + 2 * 13
    recalled = algorithm.fit.teacher.ledger.recall(np.arange(100))
    assert np.isfinite(recalled).all()
    assert [int(v) for _, v in memory.data["attent/dropped"]][-1] == 2 * 48
