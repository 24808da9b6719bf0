"""The default stops choosing where samples are memorized. Oracle: a model that only memorizes."""

import logging

import numpy as np
import pytest
import torch
from composer.models import ComposerModel
from fits import fit, make_loader, write
from torch import nn
from torch.nn import functional

from attent_stream import AtteNT

SAMPLES, LENGTH, VOCAB = 200, 24, 256  # 50 batches an epoch


class Memorizer(ComposerModel):
    """Learns the words of each sample by its first one, and nothing of the others.

    Args:
        share: How much of a sample it learns by training on it; 0 for nothing.
    """

    shift_labels = True

    def __init__(self, share: float) -> None:
        super().__init__()
        self.table, self._share = (
            nn.Embedding.from_pretrained(torch.zeros(VOCAB, VOCAB), False),
            share,
        )

    def forward(self, batch):
        tokens = batch["input_ids"]
        return {"logits": self._share * self.table(tokens[:, :1]).expand(*tokens.shape, VOCAB)}

    def loss(self, outputs, batch):
        logits, labels = outputs["logits"][:, :-1], batch["labels"][:, 1:]
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(3)
    samples = rng.integers(SAMPLES, VOCAB, (SAMPLES, LENGTH)).astype(np.uint16)
    samples[:, 0] = np.arange(SAMPLES)
    path = tmp_path_factory.mktemp("text") / "data"
    return write(path, {"tokens": "ndarray:uint16"}, [{"tokens": row} for row in samples])


def run(folder, share=40.0, max_duration="150ba", *, given=None, **kwargs):
    """What is kept of each window, what is memorized, the losses, and the words of the log."""
    # Whole samples, as a piece does not have the word that a sample is known by
    algorithm = AtteNT(**({"arrange": "none"} | (given or {})))
    watch, memory, _ = fit(
        make_loader(folder), [algorithm], Memorizer(share), max_duration=max_duration, **kwargs
    )
    kept = [float(keep) for _, keep in memory.data["attent/keep"]]
    shares = [float(share) for _, share in memory.data.get("attent/memorized", [])]
    return kept, shares, watch.losses


def test_everything_is_trained_on_from_then_on(folder, caplog):
    with caplog.at_level(logging.INFO, logger="attent_stream"):
        kept, shares, _ = run(folder)
    # 13 windows of the first epoch; 4 in which 32 samples come again, and 2 decided by then
    assert kept[:13] == [1.0] * 13 and kept[13:19] == [0.5] * 6
    assert set(kept[19:]) == {1.0} and len(kept) > 30
    assert shares[-1] > 0.1
    told = [one for one in caplog.messages if "samples are memorized" in one]
    assert len(told) == 1 and f"{100 * shares[0]:.0f}% lower" in told[0]


@pytest.mark.parametrize(
    ("share", "length", "given"),
    [
        (0.0, "150ba", {}),  # nothing is learnt, so nothing is memorized
        (40.0, "3ep", {}),  # choosing makes these shorter, and samples are not seen more often
        (40.0, "150ba", {"keep": 0.5}),  # what is asked for is done
        (40.0, "150ba", {"remember": {"detrend": False}}),  # it is not known
    ],
)
def test_elsewhere_choosing_goes_on(folder, share, length, given):
    kept, shares, _ = run(folder, share, length, given=given)
    assert set(kept[14:-1]) == {0.5}
    assert not shares or given or length == "3ep" or max(shares) < 0.01


@pytest.mark.parametrize("at", [60, 75, 101])
def test_a_resumed_run_does_the_same(folder, tmp_path, at):
    """Before it is known, soon after, and in the epoch after that."""
    _, _, whole = run(folder)
    saved = {
        "save_folder": str(tmp_path),
        "save_interval": f"{at}ba",
        "save_filename": "ba{batch}.pt",
    }
    run(folder, max_duration=f"{at}ba", **saved)
    _, _, rest = run(folder, load_path=str(tmp_path / f"ba{at}.pt"))
    assert rest == whole[at:]
