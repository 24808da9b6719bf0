"""A forward with its loss."""

import torch
from loss_cases import HINTS, B, C, T, drawn, labels, some_ignored, token_losses
from torch.nn import functional as F

from attent_stream.model.matching import matching
from attent_stream.model.reading import position_losses
from attent_stream.model.reference import IGNORED, sample_mean
from attent_stream.model.trained import Trained, operands


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
