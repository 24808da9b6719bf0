"""Token scores from hidden states and the output weight, without all logits in memory.

``PATHS`` holds the implementations; ``auto`` chooses one of them.
"""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils._triton import has_triton

from attent_stream.base.errors import ScoreError
from attent_stream.model import reference
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.reference import IGNORED, at_least_float32
from attent_stream.score import chunked
from attent_stream.score.logit_scores import SMALL

log = logging.getLogger(__name__)

Scores = tuple[Tensor, Tensor]  # (nll, residual_sq), each of shape (N,)

_CHUNK_ELEMENTS = 2**22  # logits that the reference holds at once
# Error of scores by matrix products, for logits of size 1
_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-3}


def head_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    logit_dtype: torch.dtype | None = None,
    path: str = "auto",
    compact: bool | None = None,
) -> Scores:
    """Compute the negative log-likelihood and squared residual of every token.

    The logits are ``z = scale (hidden @ weight.T + bias)``, then ``softcap tanh(z / softcap)``
    (Gemma 2, arXiv 2408.00118, section 2). The scores are those of ``reference.token_scores``. Only
    a small share of the logits is held at any time. Gradients and autocast are off inside.

    Args:
        hidden: Final hidden states, any float dtype, shape (N, D).
        weight: Output embedding, shape (V, D), on the same device. Its dtype must be that of
            ``hidden`` unless ``logit_dtype`` is set.
        labels: Class indices, ints of shape (N,), already shifted; ``-100`` is ignored.
        bias: Shape (V,), or None.
        softcap: Positive, or None.
        scale: Positive.
        logit_dtype: Dtype of the matrix product, as autocast has it. None: that of ``hidden``.
        path: A name in ``PATHS``.
        compact: Whether tokens with an ignored label are left out of the matrix product. The host
            must then know their number. None: on a CPU only, as a GPU would have to wait.

    Returns:
        ``(nll, residual_sq)``, both float32 of shape (N,) (float64 for float64 by ``reference``), 0
        where the label is ignored, not finite where a logit is not. On a GPU, NaN where a label is
        out of range.

    Raises:
        ScoreError: The weight is split over ranks (tensor parallelism).
        ValueError: Shapes, dtypes or numbers do not match, or the path is unknown.
    """
    _check(hidden, weight, labels, bias, softcap, scale, path)
    dtype = logit_dtype or hidden.dtype
    if logit_dtype is None and weight.dtype != dtype:
        raise ValueError(
            f"weight must be {dtype} as hidden is, or logit_dtype be set, got {weight.dtype}"
        )
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        if compact is None:
            compact = hidden.device.type == "cpu"
        count, index = len(labels), None
        if compact:
            index = (labels != IGNORED).nonzero().squeeze(1)
            if count and not len(index):
                return torch.zeros(2, count, dtype=torch.float32, device=hidden.device).unbind()
            if len(index) < count:
                hidden, labels = hidden[index], labels[index]
        bias = None if bias is None else bias.to(dtype)
        given = {"bias": bias, "softcap": softcap, "scale": float(scale)}
        scores = PATHS[path](hidden.to(dtype), weight.to(dtype), labels.long(), **given)
        if len(labels) == count:
            return scores
        return tuple(values.new_zeros(count).index_copy_(0, index, values) for values in scores)


def reference_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
) -> Scores:
    """Compute ``head_scores`` in plain torch, the logits of a few tokens at a time."""
    rows = max(1, _CHUNK_ELEMENTS // len(weight))
    chunks = []
    for some in (slice(start, start + rows) for start in range(0, len(labels), rows)):
        z = F.linear(hidden[some], weight, bias)
        z = chunked.transformed(at_least_float32(z), scale, softcap)
        chunks.append(reference.token_scores(z, labels[some]))
    if not chunks:
        return hidden.new_zeros(0), hidden.new_zeros(0)
    nll, residual_sq = zip(*chunks, strict=True)
    return torch.cat(nll), torch.cat(residual_sq)


def _triton(hidden: Tensor, weight: Tensor, labels: Tensor, **given) -> Scores:
    # Imported here, as some platforms have no Triton
    from attent_stream.score.triton_head import triton_scores

    return triton_scores(hidden, weight, labels, **given)


def _auto(hidden: Tensor, weight: Tensor, labels: Tensor, **given) -> Scores:
    return PATHS[_choose(hidden, weight, labels, given)](hidden, weight, labels, **given)


PATHS: dict[str, Callable[..., Scores]] = {
    "auto": _auto,
    "reference": reference_scores,
    "chunked": chunked.chunked_scores,
    "triton": _triton,
}
_fastest: dict[tuple, str] = {}  # by shape, with the number of tokens up to a power of two


def check_head(path: str | None) -> None:
    """Raise ScoreError unless ``path`` is in ``PATHS`` or None (all logits)."""
    if path is not None and path not in PATHS:
        raise ScoreError(f"head must be one of {', '.join(PATHS)} or None, got {path!r}")


def _choose(hidden: Tensor, weight: Tensor, labels: Tensor, given: dict) -> str:
    """Choose a path: ``reference`` for small inputs and float64, ``chunked`` on a CPU.

    On a GPU it is the path that was fastest on the first batch of this size.
    """
    if len(labels) * len(weight) < SMALL or hidden.dtype not in _TOLERANCE:
        return "reference"
    if hidden.device.type != "cuda":
        return "chunked"
    key = (hidden.device, hidden.dtype, tuple(weight.shape), len(labels).bit_length())
    if key not in _fastest:
        names = ["chunked", "triton"] if has_triton() else ["chunked"]
        _fastest[key] = measured(names, hidden, weight, labels, given, _gpu_seconds)
    return _fastest[key]


def measured(
    names: list[str],
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    given: dict,
    seconds: Callable[[Callable[[], Scores]], float],
) -> str:
    """Find the fastest path that runs and agrees with the reference on a few tokens.

    Args:
        names: Paths to try, in ``PATHS``.
        hidden: Hidden states, weight and labels as a path takes them.
        weight: See ``hidden``.
        labels: See ``hidden``.
        given: Keyword arguments of a path.
        seconds: Measures the time of a call.

    Returns:
        ``reference`` where no path works.
    """
    step = max(1, len(labels) // 64)
    expected = reference_scores(hidden[::step], weight, labels[::step], **given)
    times = {}
    for name in names:
        try:
            scores = PATHS[name](hidden, weight, labels, **given)
            error = difference(tuple(values[::step] for values in scores), expected)
            if error > _TOLERANCE[hidden.dtype]:
                log.warning(
                    "The %s path of the output head is not used: its scores differ by %.2g.",
                    name,
                    error,
                )
                continue
            times[name] = seconds(lambda name=name: PATHS[name](hidden, weight, labels, **given))
        except Exception as failure:
            if out_of_memory(failure):
                raise
            reason = f"{type(failure).__name__}: {failure}".split("\n")[0]
            log.warning("The %s path of the output head is not used: %s.", name, reason)
    said = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in times.items())
    best = min(times, key=times.get) if times else "reference"
    log.info(
        "Output head of %d x %d for %d tokens: %s (%s).",
        *weight.shape,
        len(labels),
        best,
        said or "none works",
    )
    return best


def difference(scores: Scores, expected: Scores) -> float:
    """The largest difference, relative above 1. Infinite where only one of two scores is finite."""
    worst = 0.0
    for got, want in zip(scores, expected, strict=True):
        if not torch.equal(got.isfinite(), want.isfinite()):
            return float("inf")
        gap = ((got - want).abs() / want.abs().clamp(min=1.0)).nan_to_num(0.0)
        worst = max(worst, gap.max().item() if len(gap) else 0.0)
    return worst


def _gpu_seconds(call: Callable[[], Scores]) -> float:
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)


def _check(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
    path: str,
) -> None:
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}")
    if isinstance(weight, DTensor):
        raise ScoreError(
            "the output head's weight must be whole on each rank, got a DTensor placed "
            f"{weight.placements} (tensor parallelism): scores of a split head are not supported, "
            "replicate it"
        )
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden (N, D) and weight (V, D) must have the same D, got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if labels.shape != hidden.shape[:1]:
        raise ValueError(f"labels must have shape ({len(hidden)},), got {tuple(labels.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({len(weight)},), got {tuple(bias.shape)}")
    for name, value in (("softcap", softcap), ("scale", scale)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    on_cpu = labels.device.type == "cpu" and len(labels)
    if on_cpu and not (
        int(labels.max()) < len(weight) and ((labels >= 0) | (labels == IGNORED)).all()
    ):
        raise ValueError(
            f"labels must be in [0, {len(weight)}) or {IGNORED}, got {int(labels.min())} to "
            f"{int(labels.max())}"
        )
