"""What people's own jobs do: ``AtteNT()`` ends no run that plain training finishes, and trains on
what it says.
"""

import pytest
import torch
from composer.models import ComposerModel
from corpora import write_tokens
from fits import LENGTH, VOCAB, TextLossOnly, fit, make_loader, make_model
from torch import nn
from torch.nn import functional as F

from attent_stream import AtteNT
from attent_stream.base.errors import CollateError
from attent_stream.corpus.batches import TokenCollator
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity, Tokens
from attent_stream.score.microbatches import score_batch


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


class LeavesOut(TokenCollator):
    """All but a broken sample."""

    def __call__(self, samples):
        return super().__call__([one for one in samples if one["tokens"][9] % 13])


class TwoViews(TokenCollator):
    def __call__(self, samples):
        return super().__call__([*samples, *samples])


class Sorts(TokenCollator):
    def __call__(self, samples):
        return super().__call__(sorted(samples, key=lambda one: int(one["tokens"][-1])))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("collate", [LeavesOut, TwoViews, Sorts])
def test_rows_that_are_not_samples_are_trained_plainly(folder, caplog, collate, workers):
    def run(*algorithms):
        # padding, which there is none of, keeps short pieces out of it
        loader = make_loader(
            folder, window=8, collate_fn=collate(pad_id=VOCAB), num_workers=workers
        )
        watch, _, _ = fit(loader, list(algorithms), max_duration="2ep")
        return watch

    plain, taught = run(), run(AtteNT())
    assert taught.tokens == plain.tokens and taught.losses == plain.losses
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("attent_stream.data.dataloader")
    ]
    assert len(told) == 1 and collate.__name__ in told[0]
    for named in (
        {"select": "hard", "keep": 0.5},
        {"remember": "always", "score": "loss"},
        {"remember": "always"},
        {"score": "loss"},
    ):
        with pytest.raises(CollateError, match=collate.__name__):
            run(AtteNT(**named))


def check_trained_plainly(model, duration, folder, **loader):
    """The default trains to the losses of a run without AtteNT, bit for bit."""
    runs = [
        fit(make_loader(folder, **loader), some, model(), max_duration=duration)[0]
        for some in ([AtteNT()], [])
    ]
    assert runs[0].losses == runs[1].losses


@pytest.mark.parametrize("duration", ["1ep", "2ep"])
def test_a_model_without_scores_is_trained_plainly(folder, caplog, duration):
    check_trained_plainly(TextLossOnly, duration, folder, collate_fn=TokenCollator(pad_id=VOCAB))
    told = [record.getMessage() for record in caplog.records if record.name.startswith("attent")]
    # Nothing is scored in a single pass
    assert len(told) == (duration == "2ep") and all("LossOnly" in text for text in told)


def test_a_cut_that_has_no_label_is_no_empty_sample():
    """The labels of a prompt-masked sample lie behind the tokens that a cheap score looks at."""
    model = make_model().eval()
    ids = torch.randint(VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, : LENGTH // 2 + 1] = labels[1] = -100
    scorer = build_scorer("loss", model, fidelity=Fidelity(tokens=Tokens(share=0.5, take="first")))
    found = score_batch(scorer, model, {"input_ids": ids, "labels": labels}, None)
    assert found[0].isnan() and found[1].isneginf() and found[2].isfinite()


class Tables(ComposerModel):
    """A recommender: two tables, and nothing that is multiplied with a weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.users, self.items = nn.Embedding(VOCAB, 4), nn.Embedding(VOCAB, 4)

    def forward(self, batch):
        batch["input_ids"].add_(0)  # in place, as some masking is
        return (self.users(batch["input_ids"][:, 0]) * self.items(batch["input_ids"][:, 1])).sum(-1)

    def loss(self, outputs, batch):
        return F.mse_loss(outputs, batch["input_ids"][:, 2].float())


def test_a_model_without_products_is_trained(folder):
    check_trained_plainly(Tables, "2ep", folder, collate_fn=TokenCollator(pad_id=VOCAB))
