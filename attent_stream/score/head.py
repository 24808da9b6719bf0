"""The output head without the logits: from hidden states and the output weight straight to each
token's scores.

``PATHS`` holds the ways to do it; ``auto`` chooses, here and nowhere else.
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
from attent_stream.model.reference import IGNORED
from attent_stream.score import chunked

log = logging.getLogger(__name__)

Scores = tuple[Tensor, Tensor]  # (nll, residual_sq), each of shape (N,)

# Logits: below, eager passes over them cost less (about 30 ms on a CPU core) than compiling ever
# wins back
SMALL = 2**22
_CHUNK_ELEMENTS = 2**22  # logits that the reference holds at once
# Of logits of size 1, by matrix products
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
    """Negative log-likelihood and squared residual of every token, from what its logits are
    computed from.

    The logits are ``z = scale (hidden @ weight.T + bias)``, with ``softcap`` then ``softcap tanh(z
    / softcap)`` (Gemma 2, arXiv 2408.00118, section 2); the scores are those of
    ``reference.token_scores``. No more than a small part of the logits is held at any time. No
    gradients, and no autocast inside.

    Args:
        hidden: The final hidden states, any float dtype, shape (N, D).
        weight: The output embedding, shape (V, D), on the same device, of the same dtype unless
            ``logit_dtype`` is set.
        labels: Class indices, ints of shape (N,), already shifted; ``-100`` is ignored.
        bias: Shape (V,), or None.
        softcap: Positive, or None.
        scale: Positive.
        logit_dtype: The dtype in which the matrix product is made, as autocast does; None: that of
            ``hidden``.
        path: A name in ``PATHS``.
        compact: Whether tokens with an ignored label are left out before the matrix product, for
            which the host must know how many there are. None: on a CPU, not on a GPU, which would
            have to wait for it.

    Returns:
        ``(nll, residual_sq)``, both float32 of shape (N,) (float64 for float64 by ``reference``), 0
        where the label is ignored, not finite where a logit is not. On a GPU NaN for a label that
        is no class.

    Raises:
        ScoreError: A weight split over ranks (tensor parallelism).
        ValueError: Shapes, dtypes or numbers that do not fit, an unknown path.
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
        index = (labels != IGNORED).nonzero().squeeze(1) if compact else None
        if index is not None and len(index) < len(labels):
            nll = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
            residual_sq = torch.zeros_like(nll)
            if len(index):
                some = head_scores(
                    hidden[index],
                    weight,
                    labels[index],
                    bias=bias,
                    softcap=softcap,
                    scale=scale,
                    logit_dtype=logit_dtype,
                    path=path,
                    compact=False,
                )
                nll, residual_sq = (
                    scores.new_zeros(len(labels)).index_copy_(0, index, scores) for scores in some
                )
            return nll, residual_sq
        bias = None if bias is None else bias.to(dtype)
        given = {"bias": bias, "softcap": softcap, "scale": float(scale)}
        return PATHS[path](hidden.to(dtype), weight.to(dtype), labels.long(), **given)


def reference_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
) -> Scores:
    """``head_scores`` in plain torch, the logits of a few tokens at a time."""
    rows = max(1, _CHUNK_ELEMENTS // len(weight))
    parts = []
    for some in (slice(start, start + rows) for start in range(0, len(labels), rows)):
        z = F.linear(hidden[some], weight, bias)
        z = chunked.transformed(z.float() if z.dtype != torch.float64 else z, scale, softcap)
        parts.append(reference.token_scores(z, labels[some]))
    nll, residual_sq = (
        zip(*parts, strict=True) if parts else ((hidden.new_zeros(0),), (hidden.new_zeros(0),))
    )
    return torch.cat(nll), torch.cat(residual_sq)


def _triton(hidden: Tensor, weight: Tensor, labels: Tensor, **given) -> Scores:
    # Where there is no Triton nothing else needs it.
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
_fastest: dict[tuple, str] = {}  # measured once for each shape, in tokens up to a power of two


def check_head(path: str | None) -> None:
    """Raises ScoreError for a path that is none; None is to compute all logits."""
    if path is not None and path not in PATHS:
        raise ScoreError(f"head must be one of {', '.join(PATHS)} or None, got {path!r}")


def logit_scores(logits: Tensor, labels: Tensor) -> Scores:
    """``reference.token_scores``, by the compiled pass where there is much to pass over; arguments
    and result as there, but for no gradients.
    """
    small = logits.numel() < SMALL or logits.dtype not in _TOLERANCE
    # One state, or it is compiled for each
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        return (reference.token_scores if small else chunked.logit_scores)(logits, labels)


def logit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The first of ``logit_scores`` alone, by torch's own loss where there is little to pass over:
    half the time.
    """
    if logits.numel() >= SMALL or logits.shape[:-1] != labels.shape:
        return logit_scores(logits, labels)[0]
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        flat = logits.reshape(-1, logits.shape[-1])
        wide = flat if flat.dtype == torch.float64 else flat.float()
        return F.cross_entropy(
            wide, labels.reshape(-1).long(), reduction="none", ignore_index=IGNORED
        ).reshape(labels.shape)


def _choose(hidden: Tensor, weight: Tensor, labels: Tensor, given: dict) -> str:
    """The path for this size: ``reference`` for little and for float64, ``chunked`` on a CPU, and
    on a GPU the one that was fastest on the first such batch, timed there, and agrees with the
    reference.
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
    """Which path is fastest here, of those that run and agree with the reference on a few tokens;
    else ``reference``.

    Args:
        names: In ``PATHS``.
        hidden: And the others as a path takes them.
        weight: See there.
        labels: See there.
        given: The keywords that a path takes.
        seconds: How long a call takes.
    """
    step = max(1, len(labels) // 64)
    expected = reference_scores(hidden[::step], weight, labels[::step], **given)
    times = {}
    for name in names:
        try:
            error = difference(
                tuple(scores[::step] for scores in PATHS[name](hidden, weight, labels, **given)),
                expected,
            )
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
    """The largest difference, relative where scores exceed 1, infinite where only one of two is
    finite.
    """
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
            f"{weight.placements} (tensor "
            "parallelism): scores of a split head are not supported, replicate it"
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
