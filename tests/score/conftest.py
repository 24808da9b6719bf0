"""Fixtures for the output head."""

import pytest
import torch

from attent_stream.score import chunked, head


@pytest.fixture(params=[False])
def widened(request, monkeypatch):
    """Whether halves are multiplied as float32. Without it, the speed of this machine decides."""
    monkeypatch.setattr(
        chunked, "matmul_dtype", lambda dtype: torch.float32 if request.param else dtype
    )
    return request.param


@pytest.fixture
def eager(monkeypatch):
    """Run the passes uncompiled: the same arithmetic, without waiting for a compiler."""
    monkeypatch.setattr(chunked._all_sums, "failed", True)
    monkeypatch.setattr(chunked._shifted_sums, "failed", True)
    monkeypatch.setattr(chunked._other_sums, "failed", True)


@pytest.fixture
def tiny_tiles(monkeypatch):
    for kind in ("_CPU", "_WIDENED"):
        monkeypatch.setattr(chunked, f"{kind}_TOKENS", 7)
        monkeypatch.setattr(chunked, f"{kind}_CLASSES", 64)
    monkeypatch.setattr(head, "_CHUNK_ELEMENTS", 500)
