"""Training on smaller images at first. Oracles: stock Composer on images that a loader has made
smaller, a resumed run.
"""

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.loggers import InMemoryLogger
from composer.models import ComposerClassifier
from corpora import write_ids, write_tokens
from fits import LENGTH, VOCAB, make_model
from fits import make_loader as token_loader
from torch.nn import functional as F
from training import trained
from transformers import ViTConfig, ViTForImageClassification

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.base.errors import AttentError, ScoreError
from attent_stream.effects.resolution import ProgressiveResolution
from attent_stream.launch.models import Logits
from attent_stream.model.vision import interpolated_positions, interpolating, shrunk

SIDE, CLASSES, BATCH, SAMPLES = 32, 4, 8, 64
# 16 pixels, 24, then all 32
STEPS = {"schedule": "step", "from": 0.5, "to": 1.0, "over": "0.75dur", "stages": 2}


def vit(dropout=0.1):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
    )
    return ComposerClassifier(Logits(ViTForImageClassification(config)), num_classes=CLASSES)


def images(samples):
    """A batch of pixels drawn from each sample's id, and its class."""
    ids = np.array([int(sample["id"]) for sample in samples])
    pixels = [np.random.default_rng(i).standard_normal((3, SIDE, SIDE), np.float32) for i in ids]
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(ids % CLASSES)


def smaller(samples):
    pixels, classes = images(samples)
    return F.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True), classes


def loader(folder, collate=images):
    dataset = TeachingDataset(
        local=folder, batch_size=BATCH, window=2, gap=1, shuffle=True, num_canonical_nodes=1
    )
    return TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=collate)


def run(folder, *, share=None, model=None, collate=images, microbatch=BATCH, **given):
    return trained(
        model or vit(),
        loader(folder, collate),
        algorithms=[] if share is None else [ProgressiveResolution(share)],
        microbatch=microbatch,
        seed=3,
        **given,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_ids(tmp_path_factory.mktemp("ids") / "data", SAMPLES)


def test_it_is_training_on_small_images(folder):
    model = vit()
    with interpolated_positions(interpolating(model)):
        wanted = run(folder, model=model, collate=smaller)
    assert torch.equal(run(folder, share=0.5), wanted)
    assert not torch.allclose(run(folder), wanted)


def test_whole_images_are_left_alone(folder):
    batch = images([{"id": 1}])
    assert shrunk(batch, 0.9, (8, 8)) is batch
    # 28.8: all 32
    assert torch.equal(
        run(folder, share={"schedule": "linear", "from": 0.9, "to": 1.0, "over": "1dur"}),
        run(folder),
    )


def test_sizes_follow_the_schedule_and_the_candidates_the_lessons(folder):
    scored, trained = [], []

    class Spy(Logits):
        def forward(self, pixels):
            (trained if self.training else scored).append((len(pixels), pixels.shape[-1]))
            return super().forward(pixels)

    model = vit()
    model.module = Spy(model.module.model)
    run(
        folder,
        model=model,
        duration="2ep",
        share=STEPS,
        keep=0.5,
        select="hard",
        score="loss",
        interval="dense",
    )
    assert [side for _, side in trained] == sorted(side for _, side in trained)
    assert {side for _, side in trained} == {16, 24, 32}
    assert scored[:2] == [(4, 32), (1, 16)]  # how outputs are read, and whether small images can be
    assert {side for size, side in scored if size > 1} == {16, 24, 32}


def test_it_depends_on_neither_microbatches_nor_resumes(folder, tmp_path):
    settings = {"share": STEPS, "remember": "always", "score": "loss"}
    whole = run(folder, saved=str(tmp_path / "saved"), **settings)
    assert torch.equal(
        run(folder, load=str(next((tmp_path / "saved").glob("ep0-ba5-rank0.pt"))), **settings),
        whole,
    )
    whole, split = (
        run(folder, model=vit(dropout=0.0), microbatch=size, **settings) for size in (BATCH, 2)
    )
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)


def test_the_model_is_as_it_was_behind_the_fit(folder):
    model = vit()
    run(folder, model=model, share=STEPS)
    with pytest.raises(ValueError, match="doesn't match model"):
        model((torch.zeros(1, 3, 16, 16), torch.zeros(1, dtype=torch.long)))


class OneSize(torch.nn.Module):
    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3 * SIDE * SIDE, CLASSES)

    def forward(self, pixels):
        return self.linear(pixels.flatten(1))


def test_a_model_of_one_size_is_refused_in_a_sentence(folder):
    model = ComposerClassifier(OneSize(), num_classes=CLASSES)
    with pytest.raises(
        AttentError,
        match=(
            r"resolution needs a model that takes images of several sizes, but this one failed at "
            r"16 x 16: "
        ),
    ):
        run(folder, model=model, share=0.5)


def test_text_is_refused_in_a_sentence(tmp_path):
    tokens = write_tokens(tmp_path / "data", 16, length=LENGTH, vocab=VOCAB)
    with pytest.raises(
        ScoreError, match=r"resolution needs float images of shape \(B, C, H, W\), got keys"
    ):
        trained(
            make_model(),
            token_loader(tokens, window=2),
            algorithms=[ProgressiveResolution(0.5)],
            microbatch=4,
        )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "progressive_resolution.share must be a number greater than 0 and at most 1, got 0"),
        (
            1.5,
            "progressive_resolution.share must be a number greater than 0 and at most 1, got 1.5",
        ),
        ("half", "progressive_resolution.share must be a number .* at most 1, or a mapping with"),
        ({"schedule": "linear", "from": 0.5}, "progressive_resolution.share needs 'to'"),
        (
            {"schedule": "lineer", "from": 0.5, "to": 1},
            "progressive_resolution.share has no schedule 'lineer', did you mean 'linear'",
        ),
    ],
)
def test_bad_settings_are_told_in_one_sentence(value, said):
    with pytest.raises(ValueError, match=said):
        ProgressiveResolution(value)


def test_it_needs_no_teaching(folder):
    """Beside AtteNT that keeps everything, and alone."""
    logged, weights = InMemoryLogger(), []
    for algorithms in ([], [AtteNT(keep=1.0, select="random")]):
        model = vit()
        trainer = Trainer(
            model=model,
            train_dataloader=loader(folder),
            optimizers=torch.optim.SGD(model.parameters(), lr=0.05),
            max_duration="1ep",
            algorithms=[*algorithms, ProgressiveResolution(STEPS)],
            loggers=[logged],
            progress_bar=False,
            seed=3,
        )
        trainer.fit()
        trainer.close()
        weights.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
    assert torch.equal(*weights)
    shares = [share for _, share in logged.data["attent/resolution"]]
    assert shares == 2 * [0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 1.0, 1.0]
