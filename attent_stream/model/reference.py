"""Per-sample scores from a model's outputs. Faster implementations are tested against them.

AtteNT (arXiv 2602.20461) teaches the samples with the largest ``||f(S) - f*(S)||``. For a
classifier or a language model, ``f(S)`` is the softmax and ``f*(S)`` the one-hot target, so the
residual of a token is ``||softmax(z) - onehot(y)||``, at most sqrt(2). The residual of a sample is
the root mean square over its valid tokens, so that length and padding do not matter. Scores are
float32, or float64 for float64 logits.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # the label that torch's and Hugging Face's losses ignore
_CHUNK_ELEMENTS = 2**22  # logits that are upcast at once: 16 MB in float32, at most two buffers


def token_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and squared residual of every token.

    The residual ``||softmax(z) - onehot(y)||^2 = sum_j p_j^2 - 2 p_y + 1`` is computed without
    cancellation as ``sum_{j != y} p_j^2 + (sum_{j != y} p_j)^2``. Rows are computed in chunks, so
    there is no float32 copy of all logits.

    Args:
        logits: Any float dtype, shape (..., V).
        labels: Class indices, ints of shape (...); ``-100`` is ignored.

    Returns:
        ``(nll, residual_sq)``, both float32 (float64 if the logits are) of shape (...), 0 where the
        label is ignored, not finite where the logits are not.

    Raises:
        ValueError: The shapes do not match.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels must have shape {tuple(logits.shape[:-1])}, got {tuple(labels.shape)}"
        )
    classes = logits.shape[-1]
    flat_logits, flat_labels = logits.reshape(-1, classes), labels.reshape(-1).long()
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    nll = torch.empty(flat_labels.shape, dtype=dtype, device=logits.device)
    residual_sq = torch.empty_like(nll)
    rows = max(1, _CHUNK_ELEMENTS // max(1, classes))
    for begin in range(0, len(flat_labels), rows):
        some = slice(begin, begin + rows)
        nll[some], residual_sq[some] = _row_scores(flat_logits[some].to(dtype), flat_labels[some])
    return nll.reshape(labels.shape), residual_sq.reshape(labels.shape)


def _row_scores(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    valid = labels != IGNORED
    index = torch.where(valid, labels, 0).unsqueeze(-1)
    # Softmax and norms are one fast pass each. Written with exp, sum and square they take twice as
    # long on a CPU.
    p = z.softmax(dim=-1)
    log_sum = z.amax(dim=-1) - p.amax(dim=-1).log()
    p.scatter_(-1, index, 0.0)
    others = p.sum(dim=-1)
    # log1p keeps the digits of a token that is almost certain, where the others are tiny.
    sure = others < 0.5
    nll = torch.where(
        sure, -torch.log1p(-others.where(sure, 0)), log_sum - z.gather(-1, index).squeeze(-1)
    )
    residual_sq = torch.linalg.vector_norm(p, dim=-1).square() + others.square()
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    return torch.where(valid, nll, zero), torch.where(valid, residual_sq, zero)


def soft_token_scores(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``-sum t log p`` and ``||softmax(z) - t||^2`` for class probabilities t.

    Args:
        logits: Any float dtype, shape (..., C).
        target: Probabilities, any dtype, shape (..., C).

    Returns:
        ``(cross_entropy, residual_sq)``, float32 or float64, both of shape (...).
    """
    z, target = _same_precision(logits, target)
    log_p = torch.log_softmax(z, dim=-1)
    # A class without probability does not count, even where log p is -inf.
    cross_entropy = -torch.where(target == 0, torch.zeros_like(z), target * log_p).sum(dim=-1)
    return cross_entropy, (log_p.exp() - target).square().sum(dim=-1)


def at_least_float32(z: Tensor) -> Tensor:
    """Cast to float32, but leave float64 as it is."""
    return z if z.dtype == torch.float64 else z.float()


def sample_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average the valid entries of each sample.

    Args:
        values: Float of shape (B, ...).
        mask: Valid entries, bool of the same shape.

    Returns:
        Shape (B,), dtype of ``values``; NaN for a sample without any valid entry.
    """
    shape = (len(values), math.prod(values.shape[1:]))
    values, mask = values.reshape(shape), mask.reshape(shape)
    return torch.where(mask, values, torch.zeros_like(values)).sum(dim=1) / mask.sum(dim=1)


def residual_from_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """``||f(S) - f*(S)||`` of every sample: root mean square over its positions.

    Args:
        logits: Shape (B, ..., C).
        target: Probabilities, shape (B, ..., C).

    Returns:
        Shape (B,), in [0, sqrt(2)].
    """
    return _every_mean(soft_token_scores(logits, target)[1]).sqrt()


def loss_from_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over each sample's positions; see ``residual_from_probabilities``."""
    return _every_mean(soft_token_scores(logits, target)[0])


def binary_residual(logits: Tensor, target: Tensor) -> Tensor:
    """Root mean square of ``sigmoid(z) - y`` over each sample's independent yes/no outputs.

    Args:
        logits: Shape (B, ...).
        target: Same shape, in [0, 1].

    Returns:
        Shape (B,), in [0, 1].
    """
    z, target = _same_precision(logits, target)
    return regression_residual(torch.sigmoid(z), target)


def binary_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy over each sample's outputs; see ``binary_residual``."""
    z, target = _same_precision(logits, target)
    return _every_mean(F.binary_cross_entropy_with_logits(z, target, reduction="none"))


def regression_residual(pred: Tensor, target: Tensor) -> Tensor:
    """``||f(S) - f*(S)||`` of a regression: root mean square of the difference.

    Args:
        pred: Shape (B, ...).
        target: Same shape.

    Returns:
        Shape (B,), float32 or float64.
    """
    return regression_loss(pred, target).sqrt()


def regression_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of each sample; see ``regression_residual``."""
    pred, target = _same_precision(pred, target)
    return _every_mean((pred - target).square())


def _same_precision(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if outputs.shape != target.shape:
        raise ValueError(
            f"the target must have shape {tuple(outputs.shape)}, got {tuple(target.shape)}"
        )
    dtype = torch.float64 if outputs.dtype == torch.float64 else torch.float32
    return outputs.to(dtype), target.to(dtype)


def _every_mean(values: Tensor) -> Tensor:
    return sample_mean(values, torch.ones_like(values, dtype=torch.bool))
