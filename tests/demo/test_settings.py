"""The demo's settings."""

import pytest

from attent_stream.demo.settings import FULL, QUICK, DemoSettings


def test_settings():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        DemoSettings(steps=0)
    with pytest.raises(ValueError, match="width must be a multiple of 32, got 48"):
        DemoSettings(width=48)
    half = FULL.with_steps(FULL.steps // 2)
    assert (half.steps, half.eval_every, half.warmup) == (
        FULL.steps // 2,
        FULL.eval_every // 2,
        FULL.warmup // 2,
    )
    assert FULL.steps % FULL.eval_every == 0 == QUICK.steps % QUICK.eval_every
