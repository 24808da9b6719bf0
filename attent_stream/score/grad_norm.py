"""Exact per-sample gradient norms of the last layer, without all logits or a backward pass.

Take final hidden states ``H`` (T, D), logits ``z = scale (H W^T + b)``, perhaps soft-capped, and
the mean loss of a sample's n valid tokens. The gradient with respect to the output weight is
``R^T H / n``. A row of R is ``(p - e_y) scale`` times the slope of the cap, and 0 where the label
is ignored. The norm is the square root of ``sum((R R^T) * (H H^T)) / n^2`` (Goodfellow, arXiv
1510.01799, for one token; ghost norms for sequences: Yousefpour et al., arXiv 2109.12298).

Katharopoulos and Fleuret (ICML 2018, arXiv 1803.00942, equation 16) bound a sample's gradient norm
by that of the last layer. The usual bound leaves out the products between tokens, and is useless on
text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.model.reference import IGNORED
from attent_stream.score.chunked import transformed

_TILE = 1024  # classes of a tile, at least
_ELEMENTS = {"cpu": 2**23, "cuda": 2**28}  # logits held at once


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """The inputs of an output head, from which a score is computed instead of the logits.

    Args:
        hidden: Final hidden states, any float dtype, shape (B, T, D).
        weight: Output weight, shape (V, D).
        labels: Ints of shape (B, T), already shifted; ``-100`` is ignored.
        bias: Shape (V,), or None.
        softcap: Soft cap of the scaled logits, positive, or None.
        scale: Scale of the logits, positive.
        logit_dtype: Dtype of the matrix product. None: that of ``hidden``.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0
    logit_dtype: torch.dtype | None = None

    def cast(self) -> "HeadInputs":
        """Cast all operands to the dtype of the matrix product."""
        dtype = self.logit_dtype or self.hidden.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return HeadInputs(
            hidden=self.hidden.to(dtype),
            weight=self.weight.to(dtype),
            labels=self.labels.long(),
            bias=bias,
            softcap=self.softcap,
            scale=self.scale,
        )


def head_grad_norms(head: HeadInputs) -> Tensor:
    """Gradient norm of each sample's mean token loss with respect to the output weight.

    Args:
        head: Inputs of the output head.

    Returns:
        Float32 (float64 for float64), shape (B,). NaN for a sample without any valid label, not
        finite where a sample's logits are not.
    """
    with torch.no_grad(), torch.autocast(head.hidden.device.type, enabled=False):
        head = head.cast()
        chunks, columns = chunks_of(head)
        norms = [_norms(head, chunk, columns) for chunk in chunks]
        return torch.cat(norms) if norms else head.hidden.new_zeros(0)


def chunks_of(head: HeadInputs) -> tuple[list[slice], int]:
    """Samples whose logits are computed at once, and classes of a tile of them."""
    samples, tokens, _ = head.hidden.shape
    limit = _ELEMENTS.get(head.hidden.device.type, _ELEMENTS["cuda"])
    # One tile of classes where a sample's logits fit
    columns = min(len(head.weight), max(_TILE, limit // max(1, tokens)))
    size = max(1, limit // max(1, tokens * columns))
    return [slice(first, first + size) for first in range(0, samples, size)], columns


def head_tiles(
    head: HeadInputs, some: slice, columns: int, wide: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Compute the residuals of some samples, a tile of classes at a time.

    Args:
        head: Inputs of the output head, all of one dtype.
        some: Samples.
        columns: Classes of a tile.
        wide: Dtype of the residuals.

    Yields:
        The first class of a tile, and rows of R, shape (b, T, classes of the tile).
    """
    hidden, labels = head.hidden[some], head.labels[some]
    valid = labels != IGNORED
    tiles = range(0, len(head.weight), columns)
    lse = torch.full(labels.shape, float("-inf"), dtype=wide, device=hidden.device)
    z = None
    for first in tiles:
        z = _logits(head, hidden, first, columns, wide)
        lse = torch.logaddexp(lse, z.logsumexp(dim=-1))
    for first in tiles:
        if z is None or len(tiles) > 1:
            z = _logits(head, hidden, first, columns, wide)
        yield first, _residuals(head, z, lse, labels, valid, first)


def _norms(head: HeadInputs, some: slice, columns: int) -> Tensor:
    hidden, labels = head.hidden[some], head.labels[some]
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    valid = labels != IGNORED
    # T x T products between tokens, or tiles of the gradient itself, whichever is smaller
    samples, tokens, width = hidden.shape
    gram = tokens <= width
    size = tokens if gram else 0
    products = torch.zeros((samples, size, size), dtype=wide, device=hidden.device)
    squares = torch.zeros(samples, dtype=wide, device=hidden.device)
    for _, residual in head_tiles(head, some, columns, wide):
        if gram:
            products += residual @ residual.mT
        else:
            squares += (residual.mT @ hidden.to(wide)).square().sum(dim=(1, 2))
    if gram:
        # The hidden states of padding may be not finite.
        states = hidden.to(wide).masked_fill(~valid[..., None], 0.0)
        squares = (products * (states @ states.mT)).sum(dim=(1, 2))
    counts = valid.sum(dim=1)
    return torch.where(counts > 0, squares.clamp(min=0).sqrt() / counts, float("nan"))


def _logits(
    head: HeadInputs, hidden: Tensor, first: int, columns: int, wide: torch.dtype
) -> Tensor:
    bias = None if head.bias is None else head.bias[first : first + columns]
    z = F.linear(hidden, head.weight[first : first + columns], bias).to(wide)
    return transformed(z, head.scale, head.softcap)


def _residuals(
    head: HeadInputs, z: Tensor, lse: Tensor, labels: Tensor, valid: Tensor, first: int
) -> Tensor:
    """Rows of R for a tile of classes, shape (b, T, columns)."""
    residual = (z - lse[..., None]).exp()
    index = (labels - first)[..., None]
    mine = (index >= 0) & (index < z.shape[-1])
    residual.scatter_add_(-1, index.clamp(0, z.shape[-1] - 1), -mine.to(residual.dtype))
    slope = head.scale
    if head.softcap is not None:
        slope = slope * (1 - (z / head.softcap).square())
    return (residual * slope).masked_fill(~valid[..., None], 0.0)


def classifier_grad_norms(hidden: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Gradient norms of a classifier's last linear layer: ``||p - e_y|| ||h||``.

    Args:
        hidden: Input of the layer, shape (B, D).
        logits: Output of the layer, shape (B, C).
        target: Classes, ints of shape (B,).

    Returns:
        Float32 (float64 for float64), shape (B,).
    """
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    residual = logits.to(wide).softmax(dim=1)
    residual = residual.scatter_add(1, target.long()[:, None], -torch.ones_like(residual[:, :1]))
    return residual.norm(dim=1) * hidden.to(wide).norm(dim=1)
