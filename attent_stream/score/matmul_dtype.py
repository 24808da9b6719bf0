"""The dtype in which a CPU multiplies matrices fastest."""

import functools
import time

import torch

_HALVES = (torch.bfloat16, torch.float16)
# Use float32 where halves are slower by this factor. It is far from both 0.5 (native) and 5
# (emulated).
_SLOWER = 1.5
_ROWS, _WIDTH = 128, 512


@functools.cache
def matmul_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype itself, or float32 for a half precision that this CPU only emulates.

    An emulated product takes five times as long as a product of the same numbers in float32, which
    also rounds less. The speed is measured once, in about 20 ms.
    """
    if dtype not in _HALVES or _seconds(dtype) <= _SLOWER * _seconds(torch.float32):
        return dtype
    return torch.float32


def _seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    out = torch.empty(_ROWS, _WIDTH, dtype=dtype)
    times = []
    for _ in range(4):  # the first call warms up
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        times.append(time.perf_counter() - begin)
    return min(times)
