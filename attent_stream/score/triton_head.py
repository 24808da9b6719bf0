"""Token scores in one Triton kernel for GPUs. The logits stay in registers.

Each program takes a block of tokens and a slice of the vocabulary. It goes over the slice block by
block with an online softmax (Milakov and Gimelshein, arXiv 1805.02867), extended by the sum of
squares. ``softmax_sums.merge`` merges the slices. Programs of one slice start side by side, so that
a block of the weight is read from memory about once, and then from the L2 cache. A block of tokens
that are all ignored costs nothing.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attent_stream.score.softmax_sums import SoftmaxSums, merge

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_PROGRAMS_PER_PROCESSOR = 4  # keeps most of the device busy until the last programs end
_CONFIGS = [
    triton.Config(
        {"ROWS": rows, "COLUMNS": columns, "DEPTH": 64}, num_warps=warps, num_stages=stages
    )
    for rows, columns, warps, stages in (
        (128, 256, 8, 3),
        (128, 128, 4, 4),
        (128, 128, 8, 3),
        (64, 256, 4, 3),
    )
]


@triton.jit
def _kernel(
    hidden,
    weight,
    bias,
    labels,
    largest_out,
    total_out,
    total_sq_out,
    own_out,
    tokens,
    classes,
    width,
    hidden_stride,
    weight_stride,
    per_slice,
    scale,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slice_index = tl.program_id(1)
    label = tl.load(labels + rows, mask=rows < tokens, other=-100)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    total_sq = tl.zeros((ROWS,), tl.float32)
    own = tl.zeros((ROWS,), tl.float32)
    if tl.max(label, axis=0) >= 0:
        row_start = hidden + rows.to(tl.int64)[:, None] * hidden_stride
        end = tl.minimum((slice_index + 1) * per_slice, classes)
        for first in range(slice_index * per_slice, end, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            column_start = weight + columns.to(tl.int64)[None, :] * weight_stride
            z = tl.zeros((ROWS, COLUMNS), tl.float32)
            for depth in range(0, width, DEPTH):
                k = depth + tl.arange(0, DEPTH)
                h = tl.load(
                    row_start + k[None, :],
                    mask=(rows[:, None] < tokens) & (k[None, :] < width),
                    other=0.0,
                )
                w = tl.load(
                    column_start + k[:, None],
                    mask=(columns[None, :] < end) & (k[:, None] < width),
                    other=0.0,
                )
                z = tl.dot(h, w, z, input_precision=PRECISION)
            if HAS_BIAS:
                z += tl.load(bias + columns, mask=columns < end, other=0.0).to(tl.float32)[None, :]
            z *= scale
            if HAS_CAP:
                z = softcap * (1.0 - 2.0 / (1.0 + tl.exp(2.0 * z / softcap)))
            mine = columns[None, :] == label[:, None]
            own += tl.sum(tl.where(mine, z, 0.0), axis=1)
            z = tl.where(mine | (columns[None, :] >= end), float("-inf"), z)
            larger = tl.maximum(largest, tl.max(z, axis=1))
            shift = tl.where(larger == float("-inf"), 0.0, larger)
            power = tl.exp(z - shift[:, None])
            rest = tl.exp(largest - shift)
            total = total * rest + tl.sum(power, axis=1)
            total_sq = total_sq * rest * rest + tl.sum(power * power, axis=1)
            largest = larger
    out = slice_index.to(tl.int64) * tokens + rows
    tl.store(largest_out + out, largest, mask=rows < tokens)
    tl.store(total_out + out, total, mask=rows < tokens)
    tl.store(total_sq_out + out, total_sq, mask=rows < tokens)
    tl.store(own_out + out, own, mask=rows < tokens)


# With TRITON_INTERPRET=1 the kernel runs on the CPU, slowly.
INTERPRETED = not isinstance(_kernel, triton.runtime.JITFunction)


@functools.cache
def _tuned(device: torch.device) -> Any:
    """The kernel with block sizes tuned on first use, for each width and vocabulary."""
    return triton.autotune(_CONFIGS, key=["classes", "width"])(_kernel)


def triton_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute ``head.head_scores`` in float16, bfloat16 or float32 on a GPU."""
    if hidden.dtype not in _DTYPES:
        raise ValueError(
            f"the triton path takes {', '.join(map(str, _DTYPES))}, got {hidden.dtype}"
        )
    if hidden.device.type != "cuda" and not INTERPRETED:
        raise ValueError(f"the triton path needs a CUDA device, got {hidden.device}")
    if INTERPRETED:  # Triton 3.3's interpreter multiplies bfloat16 as if its bits were integers
        hidden, weight = hidden.float(), weight.float()
    hidden = hidden if hidden.stride(1) == 1 else hidden.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    tokens, width = hidden.shape
    classes = len(weight)
    slices, per_slice = _slices(tokens, classes, hidden.device)
    results = torch.empty(4, slices, tokens, dtype=torch.float32, device=hidden.device)
    if tokens:
        kernel, blocks = (
            (_kernel, _CONFIGS[-1].kwargs) if INTERPRETED else (_tuned(hidden.device), {})
        )
        kernel[lambda meta: (triton.cdiv(tokens, meta["ROWS"]), slices)](
            hidden,
            weight,
            weight if bias is None else bias,
            labels.int(),
            *results,
            tokens,
            classes,
            width,
            hidden.stride(0),
            weight.stride(0),
            per_slice,
            scale,
            softcap or 1.0,
            HAS_BIAS=bias is not None,
            HAS_CAP=softcap is not None,
            PRECISION=_precision(hidden.dtype),
            **blocks,
        )
    own = results[3].sum(dim=0).masked_fill(labels >= classes, float("nan"))  # out of range
    return merge(SoftmaxSums(results[0], results[1], results[2]), own, labels)


def _slices(tokens: int, classes: int, device: torch.device) -> tuple[int, int]:
    """Slices of the vocabulary, and classes in each, a multiple of every block size."""
    processors = (
        1 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count
    )
    blocks = max(1, -(-tokens // 128))
    slices = max(1, min(-(-_PROGRAMS_PER_PROCESSOR * processors // blocks), -(-classes // 2048)))
    per_slice = -(-classes // (slices * 256)) * 256
    return -(-classes // per_slice), per_slice


def _precision(dtype: torch.dtype) -> str:
    """The precision that torch's own matrix product would use."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"
