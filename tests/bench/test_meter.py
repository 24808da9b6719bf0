"""The meter of tokens and FLOPs."""

from types import SimpleNamespace

import pytest
import torch

from attent_stream.bench.flops import Shape
from attent_stream.bench.meter import Meter


def test_small_images_are_counted_as_the_patches_they_have():
    shape = Shape(weights=1000, layers=2, width=8, positions=17)  # of 32 pixels in patches of 8
    logger = SimpleNamespace(data={"attent/candidates": [(0, 5)]})
    meter = Meter("Accuracy", logger, shape, side=32)
    state = SimpleNamespace(timestamp=SimpleNamespace(batch=3), algorithms=[], eval_metrics={})
    for side, samples in ((16, 4), (24, 4), (32, 2)):
        state.batch = (torch.zeros(samples, 3, side, side), torch.zeros(samples))
        meter.after_forward(state, None)
    meter.eval_after_all(state, None)
    (point,) = meter.points
    patches = {5: 4 * 5, 10: 4 * 10, 17: 2 * 17}  # of a sample -> of all
    assert point.tokens == sum(patches.values())
    lessons = sum(
        tokens * (6 * 1000 + 12 * 2 * 8 * positions) for positions, tokens in patches.items()
    )
    assert point.flops == pytest.approx(lessons + shape.run(0, 5 * 17))
