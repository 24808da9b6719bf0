"""Token scores, one tile of logits at a time.

Each tile is a matrix product into a buffer that stays in the cache, and a compiled pass over it.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attent_stream.model.device_memory import out_of_memory
from attent_stream.score.matmul_dtype import matmul_dtype
from attent_stream.score.softmax_sums import SoftmaxSums, merge

log = logging.getLogger(__name__)

# Tokens and classes of a tile. On a CPU, a tile of 6 to 12 MB stays in the cache until its pass. On
# a GPU, a tile must keep the device busy for longer than a launch takes, and whole rows need no
# merge.
_CPU_TOKENS, _CPU_CLASSES = 1024, 3072
# Smaller where halves are multiplied as float32, as the operands are copied too
_WIDENED_TOKENS, _WIDENED_CLASSES = 512, 1024
_GPU_ELEMENTS = 2**28
_LOG2_E = 1.4426950408889634
# Limit for a tile's total, as ``merge`` squares the total of all tiles
_LARGEST_TOTAL = 1e15
_EAGER_ELEMENTS = 2**22  # an uncompiled pass makes float32 copies of its tile


class Compiled:
    """A compiled function that runs uncompiled, with one warning, where it cannot be compiled.

    Args:
        function: A function of tensors (and None), compiled once for all sizes.

    Attributes:
        failed: Whether compilation has failed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.failed = False
        self._function = function
        self._compiled = torch.compile(function, dynamic=True, fullgraph=True)

    def __call__(self, *args: Tensor | None) -> Any:
        if not self.failed:
            try:
                return self._compiled(*args)
            except Exception as error:
                if out_of_memory(error):
                    raise
                self.failed = True
                reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
                log.warning(
                    "torch.compile cannot compile the scoring pass here, so it runs uncompiled, "
                    "about three times slower (%s).",
                    reason,
                )
        return self._function(*args)


def all_sums(z: Tensor, scale: Tensor | None) -> SoftmaxSums:
    """Compute the sums over a tile's logits.

    Args:
        z: Any float dtype, shape (N, C), with -inf for the labels' logits.
        scale: Float32 scalar, or None for 1.
    """
    z = z.float()
    return _sums(z if scale is None else z * scale)


def shifted_sums(z: Tensor, scale: Tensor | None, shift: Tensor) -> SoftmaxSums:
    """Compute ``all_sums`` relative to a given bound, in one pass and by the cheaper power of two.

    The result is large or not finite where logits are far above the bound.

    Args:
        z: See ``all_sums``.
        scale: See ``all_sums``.
        shift: Largest logit of each token in earlier tiles, float32, shape (N,).
    """
    z = z.float()
    power = torch.exp2(((z if scale is None else z * scale) - shift[:, None]) * _LOG2_E)
    return SoftmaxSums(shift, power.sum(dim=1), (power * power).sum(dim=1))


def other_sums(
    z: Tensor, index: Tensor, scale: Tensor | None, softcap: Tensor | None
) -> tuple[SoftmaxSums, Tensor]:
    """Compute the sums over a tile's logits without the labels'; the tile is not changed.

    Args:
        z: Any float dtype, shape (N, C).
        index: The labels' columns, int32, shape (N,). Columns out of [0, C) are in other tiles.
        scale: Float32 scalar, or None for 1.
        softcap: Float32 scalar c of ``c tanh(scale z / c)``, or None.

    Returns:
        The sums, and the labels' logits (scaled and capped), float32 of shape (N,), 0 where a label
        is not in this tile.
    """
    columns = torch.arange(z.shape[1], dtype=torch.int32, device=z.device)
    mine = columns[None, :] == index[:, None]
    z = transformed(z.float(), scale, softcap)
    own = torch.where(mine, z, 0.0).sum(dim=1)
    return _sums(torch.where(mine, float("-inf"), z)), own


def transformed(z: Tensor, scale: Tensor | float | None, softcap: Tensor | float | None) -> Tensor:
    """Scale and cap logits: ``c tanh(scale z / c)``, or ``scale z`` without a cap."""
    z = z if scale is None else z * scale
    return z if softcap is None else softcap * torch.tanh(z / softcap)


def _sums(z: Tensor) -> SoftmaxSums:
    largest = z.amax(dim=1)
    power = (z - torch.where(largest == float("-inf"), 0.0, largest)[:, None]).exp()
    return SoftmaxSums(largest, power.sum(dim=1), (power * power).sum(dim=1))


_all_sums, _shifted_sums, _other_sums = (
    Compiled(all_sums),
    Compiled(shifted_sums),
    Compiled(other_sums),
)


def chunked_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute ``head.head_scores`` with one product and one pass per tile of tokens and classes."""
    on_cpu = hidden.device.type == "cpu"
    dtype = matmul_dtype(hidden.dtype) if on_cpu else hidden.dtype
    rows, columns = _tile(len(labels), len(weight), on_cpu, dtype != hidden.dtype)
    bias = None if bias is None else bias.to(dtype)
    buffer = torch.empty(rows * columns, dtype=dtype, device=hidden.device)
    copies = [None, None]
    if dtype != hidden.dtype:
        copies = [
            hidden.new_empty((size, hidden.shape[1]), dtype=dtype) for size in (rows, columns)
        ]
    as_float = partial(torch.tensor, dtype=torch.float32, device=hidden.device)
    factor = None if scale == 1.0 else as_float(scale)
    cap = None if softcap is None else as_float(softcap)
    nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    residual_sq = torch.empty_like(nll)
    for start in range(0, len(labels), rows):
        some = slice(start, start + rows)
        targets, states, tiles = labels[some], _in_copy(hidden[some], copies[0]), []
        shift = None
        own = torch.full_like(nll[some], float("nan"))  # remains for a label out of range
        for first in range(0, len(weight), columns):
            w = _in_copy(weight[first : first + columns], copies[1])
            z = buffer[: len(targets) * len(w)].view(len(targets), len(w))
            if bias is None:
                torch.mm(states, w.t(), out=z)
            else:
                torch.addmm(bias[first : first + columns], states, w.t(), out=z)
            if on_cpu and cap is None:
                own = _taken(z, targets - first, own, factor)
                sums = None if shift is None else _shifted_sums(z, factor, shift)
                if sums is None or not sums.total.max() < _LARGEST_TOTAL:
                    sums = _all_sums(z, factor)
                    if sums.largest.isfinite().all():
                        largest = sums.largest
                        shift = largest if shift is None else torch.maximum(shift, largest)
            else:
                index = (targets - first).int()
                sums, found = _other_sums(z, index, factor, cap)
                own = torch.where((index >= 0) & (index < len(w)), found, own)
            tiles.append(sums)
        stacked = SoftmaxSums(*(torch.stack(tensors) for tensors in zip(*tiles, strict=True)))
        nll[some], residual_sq[some] = merge(stacked, own, targets)
    return nll, residual_sq


def logit_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``reference.token_scores`` by the compiled pass. The logits are not changed.

    Args:
        logits: Float16, bfloat16 or float32, shape (..., V).
        labels: Ints of shape (...); ``-100`` is ignored.
    """
    flat, targets = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    limit = _EAGER_ELEMENTS if _other_sums.failed else _GPU_ELEMENTS
    rows = _balanced(len(flat), max(1, limit // flat.shape[1]), 1)
    nll = torch.empty(len(flat), dtype=torch.float32, device=logits.device)
    residual_sq = torch.empty_like(nll)
    for start in range(0, len(flat), rows):
        some = slice(start, start + rows)
        sums, own = _other_sums(flat[some], targets[some].int(), None, None)
        own = own.masked_fill(targets[some] >= flat.shape[1], float("nan"))  # out of range
        nll[some], residual_sq[some] = merge(
            SoftmaxSums(*(tensor[None] for tensor in sums)), own, targets[some]
        )
    return nll.reshape(labels.shape), residual_sq.reshape(labels.shape)


def _taken(z: Tensor, index: Tensor, own: Tensor, scale: Tensor | None) -> Tensor:
    """The labels' logits in this tile, else ``own``. In the tile, they are replaced by -inf.

    This is cheaper than comparing every column in the pass over the tile.
    """
    rows = ((index >= 0) & (index < z.shape[1])).nonzero().squeeze(1)
    where = (rows, index[rows])  # scatter_ would make a float32 copy of a bfloat16 tile
    found = z[where].float()
    z[where] = float("-inf")
    return own.index_copy(0, rows, found if scale is None else found * scale)


def _in_copy(operand: Tensor, copy: Tensor | None) -> Tensor:
    """The operand, or its copy in a buffer of another dtype with at least as many rows."""
    return operand if copy is None else copy[: len(operand)].copy_(operand)


def _tile(tokens: int, classes: int, on_cpu: bool, widened: bool) -> tuple[int, int]:
    if on_cpu:
        limits = (_WIDENED_TOKENS, _WIDENED_CLASSES) if widened else (_CPU_TOKENS, _CPU_CLASSES)
        return _balanced(tokens, limits[0], 1), _balanced(classes, limits[1], 64)
    elements = _EAGER_ELEMENTS if _other_sums.failed else _GPU_ELEMENTS
    # A tile must be much smaller than all logits
    elements = min(elements, max(tokens * classes // 16, 2**24))
    return _balanced(tokens, max(128, elements // classes), 128), classes


def _balanced(total: int, limit: int, multiple: int) -> int:
    """Size of about equal tiles of at most about ``limit``, rounded up to ``multiple``."""
    tiles = max(1, -(-total // limit))
    size = max(1, -(-total // tiles))
    return -(-size // multiple) * multiple
