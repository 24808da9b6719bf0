"""Reweighting in the batch. Oracle: the paper's formulae in float64, a run split otherwise, a
resumed run.
"""

import math

import numpy as np
import pytest
import torch
from composer import Trainer
from corpora import write_tokens
from fits import LENGTH, VOCAB, LossOnly, fit, make_loader, make_model
from streaming import StreamingDataLoader, StreamingDataset

from attent_stream import AtteNT
from attent_stream.base.errors import ScoreError
from attent_stream.corpus.batches import TokenCollator
from attent_stream.experimental.reweighting import (
    STRATEGIES,
    Reweight,
    Reweighting,
    ReweightSettings,
)

FORMULAE = {
    "linupper": lambda h: np.minimum(h + 1, 1),
    "quadratic": lambda h: 1 - h**2,
    "extremes": np.abs,
}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_the_papers_formulae(strategy):
    made = np.random.default_rng(5)
    batches = [made.gamma(2.0, size=8) for _ in range(3)]
    reweighting = Reweighting(ReweightSettings(strategy=strategy, r=0.4))
    for step, losses in enumerate(batches):
        reweighting.begin_batch()
        parts = [
            reweighting.factors(torch.from_numpy(part).float()) for part in (losses[:3], losses[3:])
        ]
        reweighting.end_batch(8)
        if step == 0:
            assert (torch.cat(parts) == 1).all()
            continue
        low, high = batches[step - 1].min(), batches[step - 1].max()

        def preference(values, low=low, high=high):
            return np.exp(
                FORMULAE[strategy](np.clip(2 * (values - low) / (high - low) - 1, -1, 1)) / 0.4
            )

        expected = preference(losses) / preference(batches[step - 1]).mean()
        np.testing.assert_allclose(torch.cat(parts).numpy(), expected, rtol=1e-5)


def test_losses_that_are_not_finite_weigh_one_and_count_for_nothing():
    reweighting = Reweighting(ReweightSettings(strategy="linupper"))
    reweighting.begin_batch()
    reweighting.factors(torch.tensor([1.0, float("nan"), 3.0, float("inf")]))
    reweighting.end_batch(4)
    assert reweighting.state()[:2] == [1.0, 3.0]
    reweighting.begin_batch()
    assert reweighting.factors(torch.tensor([float("nan"), 1.0]))[0] == 1
    reweighting.end_batch(4)
    assert reweighting.state()[:2] == [1.0, 3.0]  # one loss has no spread
    none = Reweighting(ReweightSettings(strategy="linupper"))
    none.begin_batch()
    none.factors(torch.tensor([float("nan")]))
    none.end_batch(1)
    assert (none.factors(torch.tensor([1.0, 9.0])) == 1).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "linuper"}, "reweight must be one of linupper, quadratic, extremes"),
        ({"strategy": "linupper", "r": 0}, "reweight.r must be a positive number, got 0"),
        ({"strategy": "linupper", "r": True}, "reweight.r must be a positive number, got True"),
        ({"strategy": "linupper", "r": math.inf}, "reweight.r must be a positive number, got inf"),
    ],
)
def test_mistakes_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        Reweight(**wrong)


def run(loader, folder, microbatch=8, **kwargs):
    model = make_model()
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.05),
        max_duration="1ep",
        algorithms=[AtteNT(keep=1.0, select="random"), Reweight("linupper", r=0.3)],
        progress_bar=False,
        device_train_microbatch_size=microbatch,
        **kwargs,
    )
    trainer.fit()
    trainer.close()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_run_depends_on_neither_microbatches_nor_resumes(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)
    saved = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole = run(make_loader(folder), folder, **saved)
    torch.testing.assert_close(
        run(make_loader(folder), folder, microbatch=3), whole, rtol=1e-4, atol=1e-5
    )
    again = run(
        make_loader(folder),
        folder,
        load_path=str(next((tmp_path / "saved").glob("ep0-ba5-rank0.pt"))),
    )
    assert torch.equal(again, whole)
    plain = make_model()
    assert not torch.allclose(torch.cat([p.detach().flatten() for p in plain.parameters()]), whole)


def test_what_cannot_be_weighted_is_refused_in_a_sentence(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 32, length=LENGTH, vocab=VOCAB)
    plain = AtteNT(keep=1.0, select="random")
    with pytest.raises(ScoreError, match="reweight needs each sample's loss, and its forward"):
        fit(make_loader(folder), [plain, Reweight("linupper")], LossOnly())
    dataset = StreamingDataset(local=folder, batch_size=4)
    loader = StreamingDataLoader(dataset, batch_size=4, collate_fn=TokenCollator())
    with pytest.raises(TypeError, match="reweight needs a TeachingDataLoader, got Streaming"):
        fit(loader, [Reweight("linupper")])
