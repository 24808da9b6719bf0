"""Loss by position: that of a loop over tokens."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from bench_records import record_of
from torch import nn

from attent_stream.bench.positions import PARTS, loss_by_position, told

LENGTH, WORDS = 24, 7


class Fixed(nn.Module):
    """Logits that depend on the token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WORDS)

    def forward(self, batch):
        assert not self.training
        return {"logits": self.table(batch["input_ids"])}


def trainer_of(labels: list[list[torch.Tensor]]) -> SimpleNamespace:
    """Stands for a Trainer: a list of batches of ids for each label."""
    torch.manual_seed(0)
    evaluators = [
        SimpleNamespace(
            dataloader=SimpleNamespace(
                dataloader=[
                    {"input_ids": ids, "labels": ids.masked_fill(ids == 0, -100)} for ids in one
                ]
            )
        )
        for one in labels
    ]
    device = SimpleNamespace(batch_to_device=lambda batch: batch)
    return SimpleNamespace(
        state=SimpleNamespace(model=Fixed().train(), evaluators=evaluators, device=device)
    )


def test_it_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(1)
    batches = [
        [torch.randint(WORDS, (rows, LENGTH), generator=generator) for rows in (3, 2)]
        for _ in range(2)
    ]
    trainer = trainer_of(batches)
    found = loss_by_position(trainer, LENGTH)
    assert trainer.state.model.training
    table = trainer.state.model.table.weight.detach().double().log_softmax(-1)
    means = []
    for label in batches:
        losses = [[] for _ in range(PARTS)]
        for row in (row for ids in label for row in ids.tolist()):
            for at in range(1, LENGTH):
                if row[at]:
                    losses[at * PARTS // LENGTH].append(-table[row[at - 1], row[at]].item())
        means.append([sum(part) / len(part) for part in losses])
    expected = [sum(part) / 2 for part in zip(*means, strict=True)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_samples_that_are_too_short_have_none():
    assert loss_by_position(trainer_of([]), 7) == () == loss_by_position(trainer_of([]), 24)


def test_a_line_tells_the_longest_runs_mean_over_seeds():
    records = [
        replace(record_of("plain", length, seed, 3.0, 100), positions=(float(seed), 1.0))
        for length in (0.5, 1.0)
        for seed in (1, 2)
    ]
    assert told(records) == ["plain 1: loss by eighths of a sample: 1.500 1.000"]
    assert told([record_of("plain", 1.0, 1, 3.0, 100)]) == []
