"""Token scores a tile of logits at a time: a matrix product into a buffer that stays in the cache,
and a compiled pass over it.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attent_stream.model.device_memory import out_of_memory
from attent_stream.score.matmul_dtype import matmul_dtype
from attent_stream.score.softmax_sums import SoftmaxSums, merge

log = logging.getLogger(__name__)

# Tokens and classes of a tile. On a CPU a tile of 6 to 12 MB stays in the cache until its pass; on
# a GPU it must keep the device busy for longer than it takes to launch, and whole rows need no
# merging.
_CPU_TOKENS, _CPU_CLASSES = 1024, 3072
# Where halves are multiplied as float32: the operands are copied too
_WIDENED_TOKENS, _WIDENED_CLASSES = 512, 1024
_GPU_ELEMENTS = 2**28
_LOG2_E = 1.4426950408889634
# Of a tile against a bound: the square of all tiles' must be finite, of which ``merge`` makes use
_LARGEST_TOTAL = 1e15
_EAGER_ELEMENTS = 2**22  # a pass that is not compiled makes float32 copies of its tile


class Compiled:
    """A function behind ``torch.compile`` that runs as it is where nothing can compile it, which is
    said once.

    Args:
        function: Of tensors (and None), compiled once for all sizes.

    Attributes:
        failed: Whether it turned out that it cannot be compiled here.
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
    """Sums over every logit of a tile.

    Args:
        z: Any float dtype, shape (N, C); the labels' logits are -inf.
        scale: Float32 scalar, or None for 1.
    """
    z = z.float()
    return _sums(z if scale is None else z * scale)


def shifted_sums(z: Tensor, scale: Tensor | None, shift: Tensor) -> SoftmaxSums:
    """``all_sums`` against a given bound, in one look at each logit and by the cheaper power of
    two; large or not finite where logits are far above it.

    Args:
        z: See ``all_sums``.
        scale: See there.
        shift: Near the largest of each token's logits, and attained in another tile; float32, shape
            (N,).
    """
    z = z.float()
    power = torch.exp2(((z if scale is None else z * scale) - shift[:, None]) * _LOG2_E)
    return SoftmaxSums(shift, power.sum(dim=1), (power * power).sum(dim=1))


def other_sums(
    z: Tensor, index: Tensor, scale: Tensor | None, softcap: Tensor | None
) -> tuple[SoftmaxSums, Tensor]:
    """Sums over a tile's logits but the labels', and these; the tile is left as it is.

    Args:
        z: Any float dtype, shape (N, C).
        index: The labels' columns, int32, shape (N,); those below 0 or from C on are not in this
            tile.
        scale: Float32 scalar, or None for 1.
        softcap: Float32 scalar c of ``c tanh(scale z / c)``, or None.

    Returns:
        The sums, and the labels' logits (scaled and capped), 0 where not in this tile; float32,
        shape (N,).
    """
    columns = torch.arange(z.shape[1], dtype=torch.int32, device=z.device)
    mine = columns[None, :] == index[:, None]
    z = transformed(z.float(), scale, softcap)
    own = torch.where(mine, z, 0.0).sum(dim=1)
    return _sums(torch.where(mine, float("-inf"), z)), own


def transformed(z: Tensor, scale: Tensor | float | None, softcap: Tensor | float | None) -> Tensor:
    """The logits as the model's loss sees them: ``c tanh(scale z / c)``, or ``scale z`` without a
    cap.
    """
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
    """See ``head.head_scores``: one matrix product and one pass for each tile of tokens and
    classes.
    """
    on_cpu = hidden.device.type == "cpu"
    dtype = matmul_dtype(hidden.dtype) if on_cpu else hidden.dtype
    rows, columns = _tile(len(labels), len(weight), on_cpu, dtype != hidden.dtype)
    bias = None if bias is None else bias.to(dtype)
    buffer = torch.empty(rows * columns, dtype=dtype, device=hidden.device)
    copies = (
        [hidden.new_empty((size, hidden.shape[1]), dtype=dtype) for size in (rows, columns)]
        if dtype != hidden.dtype
        else [None] * 2
    )
    factor = (
        None if scale == 1.0 else torch.tensor(scale, dtype=torch.float32, device=hidden.device)
    )
    cap = (
        None
        if softcap is None
        else torch.tensor(softcap, dtype=torch.float32, device=hidden.device)
    )
    nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    residual_sq = torch.empty_like(nll)
    for start in range(0, len(labels), rows):
        some = slice(start, start + rows)
        targets, states, parts = labels[some], _in_copy(hidden[some], copies[0]), []
        shift = None
        own = torch.full_like(nll[some], float("nan"))  # stays so for a label that is no class
        for first in range(0, len(weight), columns):
            part = _in_copy(weight[first : first + columns], copies[1])
            z = buffer[: len(targets) * len(part)].view(len(targets), len(part))
            if bias is None:
                torch.mm(states, part.t(), out=z)
            else:
                torch.addmm(bias[first : first + columns], states, part.t(), out=z)
            if on_cpu and cap is None:
                own = _taken(z, targets - first, own, factor)
                sums = None if shift is None else _shifted_sums(z, factor, shift)
                if sums is None or not sums.total.max() < _LARGEST_TOTAL:
                    sums = _all_sums(z, factor)
                    if sums.largest.isfinite().all():
                        shift = (
                            sums.largest if shift is None else torch.maximum(shift, sums.largest)
                        )
                parts.append(sums)
            else:
                index = (targets - first).int()
                sums, found = _other_sums(z, index, factor, cap)
                own = torch.where((index >= 0) & (index < len(part)), found, own)
                parts.append(sums)
        stacked = SoftmaxSums(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))
        nll[some], residual_sq[some] = merge(stacked, own, targets)
    return nll, residual_sq


def logit_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``reference.token_scores`` of logits in float16, bfloat16 or float32, by the compiled pass;
    they are left as they are.

    Args:
        logits: Shape (..., V).
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
        own = own.masked_fill(targets[some] >= flat.shape[1], float("nan"))  # no such class
        nll[some], residual_sq[some] = merge(
            SoftmaxSums(*(tensor[None] for tensor in sums)), own, targets[some]
        )
    return nll.reshape(labels.shape), residual_sq.reshape(labels.shape)


def _taken(z: Tensor, index: Tensor, own: Tensor, scale: Tensor | None) -> Tensor:
    """The labels' logits found in this tile, else ``own``. In the tile -inf is left in their place:
    cheaper for the pass over it than to compare every column.
    """
    rows = ((index >= 0) & (index < z.shape[1])).nonzero().squeeze(1)
    place = (rows, index[rows])  # scatter_ would make a float32 copy of a bfloat16 tile
    found = z[place].float()
    z[place] = float("-inf")
    return own.index_copy(0, rows, found if scale is None else found * scale)


def _in_copy(operand: Tensor, copy: Tensor | None) -> Tensor:
    """The operand, or what it becomes in ``copy``, which has another dtype and at least as many
    rows.
    """
    return operand if copy is None else copy[: len(operand)].copy_(operand)


def _tile(tokens: int, classes: int, on_cpu: bool, widened: bool) -> tuple[int, int]:
    if on_cpu:
        limits = (_WIDENED_TOKENS, _WIDENED_CLASSES) if widened else (_CPU_TOKENS, _CPU_CLASSES)
        return _balanced(tokens, limits[0], 1), _balanced(classes, limits[1], 64)
    elements = _EAGER_ELEMENTS if _other_sums.failed else _GPU_ELEMENTS
    # So that little is much less than all
    elements = min(elements, max(tokens * classes // 16, 2**24))
    return _balanced(tokens, max(128, elements // classes), 128), classes


def _balanced(total: int, limit: int, multiple: int) -> int:
    """Size of equal parts of about ``limit`` at most, a multiple of ``multiple``."""
    parts = max(1, -(-total // limit))
    size = max(1, -(-total // parts))
    return -(-size // multiple) * multiple
