"""Losses from the graph of a training loss, against torch's cross-entropy without a reduction.

A recorder that never uses the graph is a second oracle.
"""

import numpy as np
import pytest
import torch
from corpora import write_tokens
from fits import LENGTH, VOCAB, make_model
from ranks_fit import fit
from ranks_jobs import RECORD, settings
from torch.nn import functional as F

from attent_stream.effects import recorder
from attent_stream.model.saved import saved_losses
from attent_stream.score.scorer import Scorer

IGNORED = -100


def operands(samples=3, length=7, classes=11):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(samples, length, classes, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (samples, length), generator=generator)
    labels[0, 2:5] = IGNORED
    return logits, labels


def expected(logits, labels):
    nll = F.cross_entropy(
        logits.detach().flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return nll.reshape(labels.shape).sum(1) / (labels != IGNORED).sum(1)


@pytest.mark.parametrize(
    "made",
    [
        lambda loss: loss,
        lambda loss: 3.0 * loss / 8,
        lambda loss: loss.mean() * 2,
        lambda loss: loss + 0.1 * torch.ones(5, requires_grad=True).square().mean(),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"reduction": "sum"}, {"label_smoothing": 0.1}])
def test_the_losses_of_samples(made, settings):
    logits, labels = operands()
    loss = made(
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, **settings)
    )
    found = saved_losses(loss, 3)
    torch.testing.assert_close(found, expected(logits, labels))
    assert not found.requires_grad
    loss.backward()  # the graph is still whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [IGNORED, 3, 255])
def test_the_losses_of_images_and_other_ignored_labels(ignored, dtype):
    """Oracle: a loop over samples."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 11, 5, 6, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(11, (4, 5, 6), generator=generator)
    labels[1], labels[2, 3] = ignored, ignored
    found = saved_losses(F.cross_entropy(logits, labels, ignore_index=ignored), 4)
    one_by_one = [
        F.cross_entropy(logits[n : n + 1].detach().float(), labels[n : n + 1], ignore_index=ignored)
        for n in range(4)
    ]
    assert found.dtype == torch.float32 and one_by_one[1].isnan() and found[1].isneginf()
    others = [0, 2, 3]
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found[others], torch.stack(one_by_one)[others], **tolerance)


def test_a_sample_without_labels_has_no_loss():
    logits, labels = operands()
    labels[1] = IGNORED
    found = saved_losses(F.cross_entropy(logits.flatten(0, 1), labels.flatten()), 3)
    assert found.isneginf().tolist() == [False, True, False]


def test_what_is_not_there_is_not_found():
    logits, labels = operands()
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    weighted = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=torch.ones(11))
    squares = (logits.square().mean() + logits.sum()) * 2
    for loss in (
        flat + F.cross_entropy(logits[:, 0], labels[:, 0]),
        weighted,
        squares,
        flat.detach(),
        (flat, flat),
        None,
    ):
        assert saved_losses(loss, 3) is None
    assert saved_losses(flat, 4) is None
    assert saved_losses(flat, 0) is None


def test_a_models_own_loss():
    model = make_model()
    ids = torch.randint(VOCAB, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[2, :9] = IGNORED
    batch = {"input_ids": ids, "labels": labels}
    outputs = model(batch)
    found = saved_losses(model.loss(outputs, batch), 4)
    torch.testing.assert_close(found, expected(outputs["logits"][:, :-1], labels[:, 1:]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 101, length=LENGTH, vocab=VOCAB)


def test_the_ledger_is_that_of_the_outputs_and_they_are_looked_at_once(folder, monkeypatch):
    job = {
        "data": settings(folder, 1),
        "attent": RECORD,
        "duration": "2ep",
        "microbatch": 3,
        "reference": True,
    }
    looked, from_outputs = [], Scorer.from_outputs

    def watched(self, model, outputs, batch):
        if model.training:  # candidates are scored in eval mode
            looked.append(len(batch["labels"]))
        return from_outputs(self, model, outputs, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "from_outputs", watched)
        saved = fit(**job)
    assert len(looked) == len(set(looked)) == 2  # microbatches of 3 and 2
    monkeypatch.setattr(recorder, "saved_losses", lambda loss, samples: None)
    outputs = fit(**job)
    np.testing.assert_allclose(saved["ledger"], outputs["ledger"], rtol=1e-3)  # of 16 bits
    assert saved["rows"] == outputs["rows"]


def test_labels_in_another_order_are_not_believed(folder, monkeypatch):
    """As for a model that flattens its labels with the positions first."""
    job = {"data": settings(folder, 1), "attent": RECORD, "duration": "2ep", "reference": True}
    expected = fit(**job)
    straight = recorder.saved_losses

    def turned(loss, samples):
        found = straight(loss, samples)
        return None if found is None else found.flip(0)

    monkeypatch.setattr(recorder, "saved_losses", turned)
    assert fit(**job)["ledger"] == pytest.approx(expected["ledger"], rel=1e-3)
