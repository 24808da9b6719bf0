"""Token scores of logits that the model has computed."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attent_stream.model import reference
from attent_stream.model.reference import IGNORED, at_least_float32
from attent_stream.score import chunked

# Logits. Below, eager passes cost less (about 30 ms on a CPU core) than compiling saves.
SMALL = 2**22
_HALVES_AND_FLOAT = (torch.float16, torch.bfloat16, torch.float32)


def logit_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``reference.token_scores`` without gradients, by a compiled pass for many logits."""
    small = logits.numel() < SMALL or logits.dtype not in _HALVES_AND_FLOAT
    # The pass is compiled again for each state of autocast and gradients.
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        return (reference.token_scores if small else chunked.logit_scores)(logits, labels)


def logit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the first of ``logit_scores`` alone, by torch's own loss (twice as fast) for few
    logits.
    """
    if logits.numel() >= SMALL or logits.shape[:-1] != labels.shape:
        return logit_scores(logits, labels)[0]
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        flat = logits.reshape(-1, logits.shape[-1])
        losses = F.cross_entropy(
            at_least_float32(flat),
            labels.reshape(-1).long(),
            reduction="none",
            ignore_index=IGNORED,
        )
        return losses.reshape(labels.shape)
