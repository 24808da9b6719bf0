"""Held-out loss by position: is a model that saw short samples first as good far into a sample?"""

from collections.abc import Sequence
from typing import Any

import torch

from attent_stream.bench.record import Record
from attent_stream.model.reference import IGNORED, token_scores

PARTS = 8


def loss_by_position(trainer: Any, length: int) -> tuple[float, ...]:
    """Evaluate a causal language model on the run's held-out text, in eighths of a sample.

    Args:
        trainer: A Trainer that has trained.
        length: Tokens of a sample.

    Returns:
        The mean loss of the tokens in each eighth, in nats, as the mean over labels. The first
        token is not predicted. Empty where samples are shorter than eight tokens.
    """
    if length < PARTS:
        return ()
    state = trainer.state
    network = state.model
    was_training = network.training
    network.eval()
    means = []
    try:
        for evaluator in state.evaluators:
            total, count = torch.zeros(PARTS), torch.zeros(PARTS)
            for batch in evaluator.dataloader.dataloader:
                batch = state.device.batch_to_device(batch)
                with torch.no_grad():
                    logits = network(batch)["logits"].float()
                labels = batch["labels"][:, 1:]
                nll, _ = token_scores(logits[:, :-1], labels)
                part = torch.arange(1, labels.shape[1] + 1) * PARTS // length
                part = part.clamp(max=PARTS - 1).expand(labels.shape)
                total.index_put_((part,), nll.cpu(), accumulate=True)
                count.index_put_((part,), (labels != IGNORED).float().cpu(), accumulate=True)
            means.append(total / count)
    finally:
        network.train(was_training)
    return tuple(torch.stack(means).mean(0).tolist()) if means else ()


def told(records: Sequence[Record]) -> list[str]:
    """A line for each arm's longest length, as the mean over seeds."""
    found = {}
    for record in records:
        if record.role == "arm" and record.positions:
            found.setdefault((record.arm, record.length), []).append(record.positions)
    lines = []
    for arm in dict.fromkeys(arm for arm, _ in found):
        length = max(length for one, length in found if one == arm)
        rows = torch.tensor(found[arm, length]).mean(0).tolist()
        shown = " ".join(f"{value:.3f}" for value in rows)
        lines.append(f"{arm} {length:g}: loss by eighths of a sample: {shown}")
    return lines
