"""Labels and paths of a reading."""

import pytest
import torch
from loss_cases import B, C, drawn, labels
from torch.nn import functional as F

from attent_stream.model.reading import (
    BINARY,
    CLASSES,
    Reading,
    arrange,
    countable,
    one_hot,
    position_losses,
    shifted,
    tensors_of,
)


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


def test_shifted_labels_are_those_of_the_next_position():
    y = labels(2, 4)
    expected = [[*row[1:], -100] for row in y.tolist()]
    assert shifted(y).tolist() == expected


def test_one_hot_with_smoothing():
    y = torch.tensor([1, -100, 3])
    got = one_hot(y, 4, 0.2)
    assert got[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert got[2].sum().item() == pytest.approx(1.0)
    assert one_hot(y, 4)[1].tolist() == [0, 0, 0, 0]


def test_yes_no_outputs_of_one_class():
    """(B, 1) outputs for (B,) integers are numbers to compare, not one sigmoid per class."""
    z, y = drawn(B, 1), torch.tensor([0, 1, 1, 0, 1])
    reading = Reading(outputs=(), target=(), kind=BINARY)
    arranged, target = arrange(reading, z, y)
    assert torch.equal(arranged, z[:, 0]) and torch.equal(target, y)
    losses, _ = position_losses(reading, arranged, target)
    expected = F.binary_cross_entropy_with_logits(z[:, 0], y.float(), reduction="none")
    torch.testing.assert_close(losses[:, 0], expected)
