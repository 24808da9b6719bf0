"""Which outputs a loss is computed from, and how. Oracle: torch's own losses without a
reduction.
"""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attent_stream.model import reading
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.loss_hints import LossHints
from attent_stream.model.matching import matching
from attent_stream.model.reading import CLASSES, Reading, countable, position_losses, tensors_of
from attent_stream.model.reference import IGNORED, sample_mean
from attent_stream.model.trained import Trained, operands

B, T, C = 5, 7, 11
HINTS = LossHints()


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape, seed=1, classes=C):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def token_losses(z, y, **given):
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none", **given).reshape(y.shape)


def some_ignored(y, index=IGNORED):
    y = y.clone()
    y[0, 1:4] = y[2, :5] = index
    return y


def shifted_case():
    z, y = drawn(B, T, C), some_ignored(labels(B, T))
    nll = token_losses(z[:, :-1], y[:, 1:])
    return (
        z,
        {"labels": y},
        nll.sum() / (y[:, 1:] != IGNORED).sum(),
        sample_mean(nll, y[:, 1:] != IGNORED),
    )


def token_case():
    z, y = drawn(B, T, C), some_ignored(labels(B, T))
    nll = token_losses(z, y)
    return z, {"labels": y}, nll.sum() / (y != IGNORED).sum(), sample_mean(nll, y != IGNORED)


def padding_is_class_0():
    z, y = drawn(B, T, C), some_ignored(labels(B, T), index=0)
    nll = token_losses(z, y, ignore_index=0)
    return z, {"ids": y}, nll.sum() / (y != 0).sum(), sample_mean(nll, y != 0)


def segmentation(index):
    z, y = drawn(B, C, 4, 4), labels(B, 4, 4)
    y[0, 2] = y[3, :, 1] = index
    nll = F.cross_entropy(z, y, reduction="none", ignore_index=index)
    return z, (drawn(B, 3, 4, 4), y), nll.sum() / (y != index).sum(), sample_mean(nll, y != index)


def classes():
    z, y = drawn(B, C), labels(B)
    nll = F.cross_entropy(z, y, reduction="none")
    return z, {"image": drawn(B, 3, 4, 4), "class": y}, nll.mean(), nll


def column_of_classes():
    z, y = drawn(B, C), labels(B, 1)
    nll = F.cross_entropy(z, y[:, 0], reduction="none")
    return z, {"labels": y}, nll.mean(), nll


def summed_over_the_batch():
    z, batch, _, nll = classes()
    return z, batch, nll.sum(), nll


def smoothed():
    z, y = drawn(B, C), labels(B)
    nll = F.cross_entropy(z, y, reduction="none", label_smoothing=0.1)
    return z, {"labels": y}, nll.mean(), nll


def one_hot():
    z, y = drawn(B, C), F.one_hot(labels(B), C).float()
    nll = F.cross_entropy(z, y, reduction="none")
    return z, (drawn(B, 2), y), nll.mean(), nll


def yes_no():
    z, y = drawn(B, 4), labels(B, 4, classes=2)
    losses = F.binary_cross_entropy_with_logits(z, y.float(), reduction="none")
    return z, {"tags": y}, losses.mean(), losses.mean(1)


def one_sigmoid_a_class():
    z, y = drawn(B, C), labels(B)
    losses = F.binary_cross_entropy_with_logits(z, F.one_hot(y, C).float(), reduction="none")
    return z, {"labels": y}, losses.sum() / B, losses.mean(1)


def regression():
    z, y = drawn(B, 1), drawn(B, seed=3)
    losses = F.mse_loss(z[:, 0], y, reduction="none")
    return {"prediction": z}, {"x": drawn(B, 6, seed=4), "y": y}, losses.mean(), losses


def loss_first():
    z, batch, loss, each = token_case()
    return (loss, z), batch, loss, each


def own_labels():
    z, ids = drawn(B, T, C), labels(B, T)
    nll = token_losses(z[:, :-1], ids[:, 1:])
    return (
        {"logits": z},
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        nll.mean(),
        nll.mean(1),
    )


CASES = [
    shifted_case,
    token_case,
    padding_is_class_0,
    functools.partial(segmentation, 255),
    functools.partial(segmentation, -1),
    classes,
    column_of_classes,
    summed_over_the_batch,
    smoothed,
    one_hot,
    yes_no,
    one_sigmoid_a_class,
    regression,
    loss_first,
    own_labels,
]


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
    """A head of zeros gives ln C whatever the labels are; the loss's graph holds those that it
    took.
    """
    z, y = torch.zeros(B, T, C, requires_grad=True), labels(B, T)
    loss = F.cross_entropy(z[:, :-1].flatten(0, 1), y[:, 1:].flatten())
    assert {
        one.shift for one in matching(Trained.of(z, {"labels": y}, loss.detach(), B), None, HINTS)
    } == {True, False}
    assert {one.shift for one in matching(Trained.of(z, {"labels": y}, loss, B), None, HINTS)} == {
        True
    }


def test_a_loss_without_outputs_is_read_from_its_graph():
    hidden, y = drawn(B, T, 3).requires_grad_(), some_ignored(labels(B, T))
    head = drawn(3, C, seed=6)
    z = (hidden @ head)[:, :-1]
    loss = F.cross_entropy(z.flatten(0, 1), y[:, 1:].flatten())
    trained = Trained.of({"loss": loss}, {"input_ids": labels(B, T, seed=9), "labels": y}, loss, B)
    (found,) = matching(trained, None, HINTS)
    assert found.outputs is None and found.target == ("labels",) and found.shift
    values, valid = position_losses(found, *operands(found, trained))
    expected = sample_mean(token_losses(z, y[:, 1:]), y[:, 1:] != IGNORED)
    torch.testing.assert_close(sample_mean(values, valid), expected)


def test_samples_that_do_not_lie_one_after_the_other_are_not_read():
    z, y = drawn(T, B, C).requires_grad_(), labels(B, T)
    loss = F.cross_entropy(z.flatten(0, 1), y.T.flatten())
    assert matching(Trained.of(z, {"labels": y}, loss, B), None, HINTS) == []
    assert matching(Trained.of({"loss": loss}, {"labels": y}, loss, B), None, HINTS) == []


def test_what_a_model_says_of_its_loss():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.07)
            self.b = functools.partial(F.cross_entropy, ignore_index=3)

    hints = LossHints.of(Model())
    assert set(hints.ignored) == {0, 3} and hints.smoothing[0] == 0.07
    z, y = drawn(B, C), torch.full((B,), 5)
    found = matching(Trained.of(z, {"labels": y}, F.cross_entropy(z, y), B), None, hints)
    assert found[0].ignored is not None  # no label of the batch says so


def test_labels_out_of_range_never_count():
    y = torch.tensor([-100, -1, 0, 10, 11, 255])
    assert countable(y, C).tolist() == [-100, -100, 0, 10, -100, -100]
    assert countable(y, C, ignored=0).tolist() == [-100, -100, -100, 10, -100, -100]


def test_paths():
    outputs = {"logits": drawn(B, 2), "past": (drawn(B, 1), [drawn(B)], drawn(3)), "note": "x"}
    assert [path for path, _ in tensors_of(outputs, B)] == [
        ("logits",),
        ("past", 0),
        ("past", 1, 0),
    ]
    with pytest.raises(LookupError):
        Reading(outputs=("hidden",), target=(), kind=CLASSES).arranged(outputs, labels(B))


class Classifier(nn.Module):
    """As little of a model as a check looks at."""


def check_sees(check, outputs, batch, loss):
    check.see(lambda: Trained.of(outputs, batch, loss, B))


def test_a_batch_that_says_nothing_decides_nothing():
    """A loss that is not finite, no label at all, memory that runs out: the next batch is looked
    at.
    """

    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    check, z, y = LossCheck(Classifier()), drawn(B, C).requires_grad_(), labels(B)
    empty = torch.full_like(y, IGNORED)
    check_sees(check, z, {"labels": y}, torch.tensor(float("nan")))
    check_sees(check, z, {"labels": empty}, F.cross_entropy(z, empty, reduction="sum"))
    check.see(out_of_memory)
    assert check.reading is None and check.reason is None and check.due
    check_sees(check, z, {"labels": y}, F.cross_entropy(z, y))
    found = check.reading
    assert found is not None
    check_sees(check, z, {"labels": y}, torch.tensor(float("inf")))
    assert check.reading == found and check.reason is None
    check_sees(check, z, {"labels": y}, torch.tensor(1234.5))
    assert check.reading is None and "gives its loss" in check.reason


def test_what_was_asked_for_keeps_its_reading():
    check, z, y = LossCheck(Classifier()), drawn(B, C), labels(B)
    check_sees(check, z, {"labels": y}, F.cross_entropy(z, y))
    found = check.reading
    check.see(lambda: Trained.of(z, {"labels": y}, torch.tensor(9.0), B), keep=True)
    assert check.reading == found and check.reason is None


def test_no_target_of_every_class_is_made_where_a_smaller_one_fits(monkeypatch):
    """A language model's labels one hot would be several times its logits."""

    def refused(*args, **given):
        raise AssertionError("one hot")

    monkeypatch.setattr(reading, "one_hot", refused)
    outputs, batch, loss, _ = shifted_case()
    assert matching(Trained.of(outputs, batch, loss, B), None, HINTS)
    assert matching(Trained.of(outputs, batch, 3 * loss, B), None, HINTS) == []
