"""Settings of a loss, found in a model."""

import functools

import torch
from loss_cases import B, C, drawn
from torch import nn
from torch.nn import functional as F

from attent_stream.model.loss_hints import LossHints
from attent_stream.model.matching import matching
from attent_stream.model.trained import Trained


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
