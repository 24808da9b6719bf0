"""A batch of text, and the losses of its tokens written out."""

import torch
from fits import LENGTH, VOCAB
from torch.nn import functional as F


def text(rows: int = 5) -> dict:
    ids = torch.randint(VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[1, 5:] = -100  # so that samples have unlike numbers of tokens
    labels[3, :2] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def token_losses(outputs, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each sample: the sum over its tokens, and how many they are."""
    labels = batch["labels"][:, 1:]
    losses = F.cross_entropy(
        outputs["logits"][:, :-1].transpose(1, 2).double(), labels, reduction="none"
    )
    return losses.sum(1), (labels != -100).sum(1)
