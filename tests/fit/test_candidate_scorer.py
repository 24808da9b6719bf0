"""Candidates are scored as they would be trained on, rightly or not at all. Oracle: scores in
float64, written out.
"""

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import DataSpec
from composer.models import ComposerModel
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, Steps, TextLossOnly, fit, make_loader, write
from torch import nn
from torch.nn import functional as F

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.fit.candidate_scorer import CandidateScorer


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


class Ragged(ComposerModel):
    """Images of several sizes: the patches of all in one tensor, and how many each has."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)

    def forward(self, batch):
        patches, counts, _ = batch
        return torch.stack([part.mean(0) for part in self.net(patches).split(counts.tolist())])

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs, batch[2])


def ragged(samples):
    patches = [torch.as_tensor(sample["patches"]).reshape(-1, 4) for sample in samples]
    labels = torch.tensor([sample["label"] for sample in samples])
    return torch.cat(patches), torch.tensor([len(one) for one in patches]), labels


def split(batch, size):
    patches, counts, labels = batch
    parts = patches.split(counts.tolist())
    return [
        (
            torch.cat(parts[first : first + size]),
            counts[first : first + size],
            labels[first : first + size],
        )
        for first in range(0, len(labels), size)
    ]


@pytest.mark.parametrize("name", ["residual", "loss"])
def test_candidates_are_split_and_transformed_as_lessons_are(tmp_path, monkeypatch, name):
    rng = np.random.default_rng(0)
    samples = [
        {
            "patches": rng.normal(size=4 * rng.integers(1, 5)).astype(np.float32),
            "label": int(rng.integers(3)),
        }
        for _ in range(64)
    ]
    folder = write(tmp_path / "ragged", {"patches": "ndarray:float32", "label": "int"}, samples)
    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=4, gap=1, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=ragged)
    model, scored = Ragged(), []
    score = CandidateScorer.__call__

    def watched(self, state, batch, window):
        found = score(self, state, batch, window)
        weights = [parameter.detach().double() for parameter in model.parameters()]
        patches, counts, labels = batch
        z = torch.stack(
            [F.linear(part.double(), *weights).mean(0) for part in patches.split(counts.tolist())]
        )
        residual = (z.softmax(1) - F.one_hot(labels, 3)).norm(dim=1)
        loss = F.cross_entropy(z, labels, reduction="none")
        scored.append((found, {"residual": residual, "loss": loss}[name]))
        return found

    monkeypatch.setattr(CandidateScorer, "__call__", watched)
    spec = DataSpec(
        loader,
        split_batch=split,
        get_num_samples_in_batch=lambda batch: len(batch[2]),
        batch_transforms=lambda batch: (2 * batch[0], *batch[1:]),
    )
    trainer = Trainer(
        model=model,
        train_dataloader=spec,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=[AtteNT(select="hard", keep=0.5, score=name)],
        device_train_microbatch_size=2,
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    assert scored
    for found, expected in scored:
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("attent", "cure"),
    [
        ({"score": "residual", "select": "hard", "keep": 0.5}, "(model, batch)"),
        # Text seen again is chosen by what is remembered
        ({"score": "entropy"}, "set remember to never"),
        ({"score": "loss", "remember": "always"}, "set remember to never"),
        ({"score": "remembered", "select": "soft"}, "set remember to never"),
    ],
)
def test_a_score_that_was_asked_for_is_refused_before_the_first_step(folder, attent, cure):
    model = TextLossOnly()
    optimizer = Steps(model.parameters(), lr=0.1)
    trainer = Trainer(
        model=model,
        train_dataloader=make_loader(folder),
        optimizers=optimizer,
        max_duration="2ep",
        algorithms=[AtteNT(**attent)],
        progress_bar=False,
    )
    with pytest.raises(
        ValueError, match="LossOnly.*a loss and no outputs for each sample"
    ) as caught:
        trainer.fit()
    trainer.close()
    assert optimizer.taken == 0
    assert cure in str(caught.value)


def test_a_function_scores(folder):
    def length(model, batch):
        return batch["input_ids"].float().mean(1)

    watch, _, _ = fit(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=length)])
    plain, _, _ = fit(make_loader(folder), [])
    mean = [np.mean(batch) for batch in watch.tokens]
    assert np.mean(mean) > np.mean([np.mean(batch) for batch in plain.tokens]) + 0.5


def test_batch_without_labels(folder):
    class Unlabelled(TokenCollator):
        def __call__(self, samples):
            batch = super().__call__(samples)
            batch["targets"] = batch.pop("labels")
            return batch

    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=4)
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=Unlabelled())
    with pytest.raises(ValueError, match="no tensor 'labels'"):
        fit(loader, [AtteNT(select="hard", keep=0.5)])


@pytest.mark.parametrize("shape", [(), (BATCH, 2), (BATCH + 1,)])
def test_a_function_that_gives_other_than_one_score_a_sample_is_refused(folder, shape):
    def score(model, batch):
        return torch.zeros(shape)

    with pytest.raises(ValueError, match=r"must return a float tensor of shape \(4,\)") as told:
        fit(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=score)])
    assert f"got torch.float32 of shape {shape}; on rank 0" in str(told.value)


def test_micro_batches_are_of_the_size_that_was_asked_for(folder):
    sizes = []

    def score(model, batch):
        sizes.append(len(batch["input_ids"]))
        return batch["input_ids"][:, 0].float()

    def run(**attent):
        sizes.clear()
        algorithm = AtteNT(select="hard", keep=0.5, score=score, **attent)
        watch, _, _ = fit(make_loader(folder), [algorithm], device_train_microbatch_size=2)
        return watch.tokens, set(sizes)

    (as_lessons, plain), (own, asked) = run(), run(scoring={"batch": 3})
    assert (plain, asked) == ({2}, {3, 1})
    assert own == as_lessons
