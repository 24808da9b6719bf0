"""Outputs, batches and losses of many forms, with each sample's loss by torch."""

import functools

import torch
from torch.nn import functional as F

from attent_stream.model.loss_hints import LossHints
from attent_stream.model.reference import IGNORED, sample_mean

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
