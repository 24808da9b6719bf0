"""The dtype of matrix products on a CPU."""

import torch

from attent_stream.score import matmul_dtype


def test_a_cpu_that_emulates_halves_multiplies_floats(monkeypatch):
    seconds = {torch.float32: 1.0, torch.bfloat16: 5.0, torch.float16: 1.2}
    monkeypatch.setattr(matmul_dtype, "_seconds", seconds.get)
    chosen = matmul_dtype.matmul_dtype.__wrapped__
    assert [chosen(dtype) for dtype in seconds] == [torch.float32, torch.float32, torch.float16]
    assert chosen(torch.float64) == torch.float64
