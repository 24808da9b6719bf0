"""Forms of losses, told apart on two samples. Oracle: losses that are made by hand."""

import pytest
import torch

from attent_stream.fit import loss_form as form

ONE = 1e-5


def loss_form(made, loss, tolerance, training=None):
    return form.loss_form(made, loss, training=training or loss, tolerance=tolerance)


def batch(lengths=(3, 9, 6, 4), width=12, unlabelled=1):
    lengths = torch.tensor(lengths)
    present = torch.arange(width) < lengths[:, None]
    tokens = (torch.arange(1, len(lengths) * width + 1) * 7 % 23).reshape(-1, width) * present
    labels = torch.where(present & (torch.arange(width) >= unlabelled), tokens, -100)
    return {"input_ids": tokens, "attention_mask": present.long(), "labels": labels}


def of_tokens(made):
    """Losses of predicted tokens, and which there are."""
    labels = made["labels"][:, 1:]
    return 3 + (labels % 5).double() / 5, labels != -100


def token_mean(made):
    losses, known = of_tokens(made)
    return float(losses[known].mean())


def sample_mean(made):
    losses, known = of_tokens(made)
    return float(((losses * known).sum(1) / known.sum(1)).mean())


def token_sum(made):
    losses, known = of_tokens(made)
    return float(losses[known].sum())


def all_positions(made):
    losses, known = of_tokens(made)
    return float((losses * known).sum() / known.numel())


def alike(made):
    return 3.0


def wide_only(made):
    assert made["labels"].shape[1] == 12, "twelve positions"
    return token_mean(made)


def by_width(made):
    return token_mean(made) * made["labels"].shape[1]


def fails(made):
    raise RuntimeError("a bad batch")


def nothing(made):
    return float("nan")


@pytest.mark.parametrize(
    ("loss", "uneven", "uncut"),
    [
        (token_mean, "", ""),
        (sample_mean, "the mean over their tokens is", ""),
        (token_sum, "the mean over their tokens is", ""),
        (all_positions, "the mean over their tokens is", "without padding its loss is"),
        (alike, "too alike", ""),
        (wide_only, "", "twelve positions"),
        (by_width, "", "without padding its loss is"),
        (fails, "a bad batch", "a bad batch"),
        (nothing, "is nan", "without padding its loss is nan"),
    ],
)
def test_each_is_told_apart(loss, uneven, uncut):
    found = loss_form(batch(), loss, tolerance=ONE)
    for reason, expected in zip(found, (uneven, uncut), strict=True):
        assert expected in reason and bool(reason) == bool(expected), found


def test_a_larger_tolerance_tells_less():
    assert loss_form(batch(), token_mean, tolerance=0.2).uneven.endswith("what it is the mean of")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (batch((5,)), "too few labels"),
        (batch((2, 2)), "too few labels"),
        (batch((3, 9), unlabelled=9), "too few labels"),
        ({"input_ids": batch()["input_ids"]}, "no labels of shape (4, 12)"),
        ([torch.ones(3)], "needs input_ids"),
    ],
)
def test_what_shows_nothing_is_not_known(made, reason):
    assert reason in loss_form(made, token_mean, tolerance=ONE).uneven


def test_padding_before_samples_cannot_be_cut():
    flipped = {name: value.flip(1) for name, value in batch().items()}
    found = loss_form(flipped, token_mean, tolerance=ONE)
    assert not found.uneven and "padding at the end" in found.uncut


def test_a_batch_is_not_changed():
    made = batch()
    before = {name: value.clone() for name, value in made.items()}
    loss_form(made, token_mean, tolerance=ONE)
    assert all(torch.equal(value, before[name]) for name, value in made.items())


def test_a_width_that_only_training_needs_is_seen():
    seen = []

    def in_fours(made):
        seen.append(made["labels"].shape[1])
        assert seen[-1] % 8 == 0 or seen[-1] == 16, "eight positions"
        return token_mean(made)

    found = loss_form(batch(width=16), token_mean, training=in_fours, tolerance=ONE)
    assert found.uneven == "" and found.uncut == ""
    wide = batch((3, 9, 6, 4), width=20)  # cut to multiples of 4
    found = loss_form(wide, token_mean, training=in_fours, tolerance=ONE)
    assert "eight positions" in found.uncut


def test_the_number_of_losses_depends_on_no_loss():
    """Each may be a forward that all ranks make together."""
    counts = []
    for loss in (token_mean, sample_mean, by_width, nothing):
        called = []
        loss_form(batch(), lambda made, f=loss, c=called: (c.append(1), f(made))[1], tolerance=ONE)
        counts.append(len(called))
    assert len(set(counts)) == 1
