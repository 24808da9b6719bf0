"""What a fit finds out when it starts, what it says, and what it refuses."""

import logging

import numpy as np
import pytest
import torch
from composer import Algorithm
from composer.algorithms import CutMix
from composer.models import ComposerClassifier
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader, make_model, make_rotary, write
from torch import nn

from attent_stream import AtteNT
from attent_stream.arrange.balance import Balance
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


def test_losses_of_mixed_samples_are_not_recorded(tmp_path, caplog):
    rng = np.random.default_rng(0)
    samples = [
        {"image": rng.normal(size=(3, 8, 8)).astype(np.float32), "label": int(rng.integers(5))}
        for _ in range(64)
    ]
    folder = write(tmp_path / "images", {"image": "ndarray:float32:3,8,8", "label": "int"}, samples)

    def run(**attent):
        loader = make_loader(
            folder,
            collate_fn=lambda some: (
                torch.stack([torch.as_tensor(one["image"]) for one in some]),
                torch.tensor([one["label"] for one in some]),
            ),
        )
        model = ComposerClassifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), num_classes=5)
        fit(loader, [CutMix(), AtteNT(**attent)], model, max_duration="2ep")

    run()
    assert not caplog.records  # images are streamed plainly by default
    with pytest.raises(ValueError, match="CutMix mixes samples"):
        run(remember="always", score="loss")


def test_anneal_in_another_unit_than_the_duration(folder):
    with pytest.raises(ValueError, match="anneal"):
        fit(make_loader(folder), [AtteNT(anneal="100tok")], max_duration="1ep")


@pytest.mark.parametrize(("largest", "pieces"), [(31, 4), (127, 4), (128, None)])
def test_windows_that_are_too_large_to_be_balanced_are_told(
    folder, caplog, monkeypatch, largest, pieces
):
    """A window is of 8 rows of 4 samples, and in pieces of 4 times as many."""
    monkeypatch.setattr(Balance, "largest", largest)
    fit(make_loader(folder, window=8), [AtteNT()], make_rotary())
    words = f"more than {largest} samples, or pieces of them: its 8 rows have 32 samples, in up to "
    assert (pieces is not None) == any(words + f"{pieces} pieces" in one for one in told(caplog))


def told(caplog, level=logging.WARNING) -> list[str]:
    records = [one for one in caplog.records if one.name.startswith("attent_stream.fit")]
    return [record.getMessage() for record in records if record.levelno >= level]


@pytest.mark.parametrize(
    ("collate", "duration", "words"),
    [
        (None, "1ep", "packed text seen once: nothing is dropped, short pieces"),
        (None, "2ep", "samples seen again: the harder ones"),
        (TokenCollator(pad_id=VOCAB), "1ep", "samples are streamed plainly"),
    ],
)
def test_one_line_tells_what_a_run_does(folder, caplog, collate, duration, words):
    caplog.set_level(logging.INFO, "attent_stream.fit")
    given = {} if collate is None else {"collate_fn": collate}
    fit(make_loader(folder, **given), [AtteNT()], make_rotary(), max_duration=duration)
    lines = told(caplog, logging.INFO)
    assert len(lines) == 1 and lines[0].startswith(f"AtteNT: {words}")


@pytest.mark.parametrize(("window", "warned"), [(24, True), (23, False)])
def test_a_window_as_long_as_an_epoch_teaches_nothing(folder, caplog, window, warned):
    fit(make_loader(folder, window=window), [AtteNT(select="hard", keep=0.5)])
    assert sum("Nothing will be taught" in text for text in told(caplog)) == warned


def test_losses_of_mixed_text_are_not_remembered_and_it_is_said(folder, caplog):
    fit(make_loader(folder), [AtteNT(), Idle()], max_duration="2ep")
    assert [text for text in told(caplog) if "mixes samples" in text] == [
        "Training losses are not remembered: Idle mixes samples, so no training loss is of one of "
        "them."
    ]


class Idle(CutMix):
    """Says that it mixes samples, and does not."""

    def match(self, event, state):
        return False


def test_an_algorithm_that_changes_batches_changes_candidates(folder):
    class Prepares(Algorithm):
        models, seen = [], 0

        def match(self, event, state):
            return False

        def apply(self, event, state, logger):
            raise AssertionError

        def prepare_models(self, models):
            self.models = models

        def prepare_candidates(self, state, batch):
            self.seen += 1
            return batch | {"input_ids": torch.zeros_like(batch["input_ids"])}

    scored = []

    def score(model, batch):
        scored.append(batch["input_ids"])
        return torch.zeros(len(batch["input_ids"]))

    one = Prepares()
    model = make_model()
    _, memory, trainer = fit(
        make_loader(folder), [AtteNT(select="hard", keep=0.5, score=score), one], model
    )
    assert one.models == [trainer.state.model]
    assert one.seen == len(scored) == memory.data["attent/candidates"][-1][1] / 4
    assert all((ids == 0).all() for ids in scored)
