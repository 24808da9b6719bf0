"""Which outputs a loss is computed from, and how, against torch's losses without a reduction."""

import pytest
import torch
from loss_cases import CASES, HINTS, B, C, T, drawn, labels, shifted_case
from torch.nn import functional as F

from attent_stream.model import reading
from attent_stream.model.matching import matching
from attent_stream.model.reading import CLASSES, Reading, position_losses
from attent_stream.model.reference import sample_mean
from attent_stream.model.trained import Trained, operands


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: getattr(case, "__name__", f"segmentation {case}"[:12])
)
@pytest.mark.parametrize(
    "prior", [None, Reading(outputs=(), target=("labels",), kind=CLASSES, shift=True)]
)
def test_the_reading_is_found_by_the_loss(case, prior):
    outputs, batch, loss, expected = case()
    trained = Trained.of(outputs, batch, loss, B)
    found = matching(trained, prior, HINTS)
    assert found
    values, valid = position_losses(found[0], *operands(found[0], trained))
    torch.testing.assert_close(sample_mean(values, valid), expected, rtol=1e-5, atol=1e-6)


def test_a_loss_of_two_heads_is_not_read_as_one_of_them():
    a, b, y = drawn(B, C), drawn(B, C, seed=5), labels(B)
    a.requires_grad_()
    b.requires_grad_()
    loss = F.cross_entropy(a, y) + 0.3 * F.cross_entropy(b, y)
    assert matching(Trained.of((a, b), (drawn(B, 2), y), loss, B), None, HINTS) == []


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.cross_entropy(z, y, weight=torch.arange(1.0, C + 1)),
        lambda z, y: 0.5 * F.cross_entropy(z, y),
        lambda z, y: F.cross_entropy(z, y) + 0.01 * z.square().mean(),
        lambda z, y: F.multi_margin_loss(z, y),
        lambda z, y: None,
        lambda z, y: torch.tensor(float("nan")),
    ],
)
def test_another_loss_is_not_read(loss):
    z, y = drawn(B, C).requires_grad_(), labels(B)
    assert matching(Trained.of(z, {"labels": y}, loss(z, y), B), None, HINTS) == []


def test_outputs_without_a_difference_are_told_apart_by_the_graph():
    """A head of zeros gives ln C for any labels. The loss's graph holds the right ones."""
    z, y = torch.zeros(B, T, C, requires_grad=True), labels(B, T)
    loss = F.cross_entropy(z[:, :-1].flatten(0, 1), y[:, 1:].flatten())
    assert {
        one.shift for one in matching(Trained.of(z, {"labels": y}, loss.detach(), B), None, HINTS)
    } == {True, False}
    assert {one.shift for one in matching(Trained.of(z, {"labels": y}, loss, B), None, HINTS)} == {
        True
    }


def test_samples_that_do_not_lie_one_after_the_other_are_not_read():
    z, y = drawn(T, B, C).requires_grad_(), labels(B, T)
    loss = F.cross_entropy(z.flatten(0, 1), y.T.flatten())
    assert matching(Trained.of(z, {"labels": y}, loss, B), None, HINTS) == []
    assert matching(Trained.of({"loss": loss}, {"labels": y}, loss, B), None, HINTS) == []


def test_no_target_of_every_class_is_made_where_a_smaller_one_fits(monkeypatch):
    """One-hot labels of a language model would be several times as large as its logits."""

    def refused(*args, **given):
        raise AssertionError("one hot")

    monkeypatch.setattr(reading, "one_hot", refused)
    outputs, batch, loss, _ = shifted_case()
    assert matching(Trained.of(outputs, batch, loss, B), None, HINTS)
    assert matching(Trained.of(outputs, batch, 3 * loss, B), None, HINTS) == []
