"""Readings over several batches."""

import torch
from loss_cases import B, C, drawn, labels
from torch import nn
from torch.nn import functional as F

from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reference import IGNORED
from attent_stream.model.trained import Trained


class Classifier(nn.Module):
    """A model with as little as a check needs."""


def check_sees(check, outputs, batch, loss):
    check.see(lambda: Trained.of(outputs, batch, loss, B))


def test_a_batch_that_says_nothing_decides_nothing():
    """After a loss that is not finite, a batch without labels or an out-of-memory error, the next
    batch is tested.
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
