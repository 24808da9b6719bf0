"""A share of an image's patches. Oracles: frequencies of the draws; a model that counts tokens."""

import numpy as np
import pytest
import torch
from block_models import images, pair, scores
from torch import nn

from attent_stream.base.errors import ScoreError
from attent_stream.experimental.patches import RandomPatches, drawn_patches
from attent_stream.score.fidelity import Fidelity


@pytest.mark.parametrize(("count", "share", "size"), [(16, 0.25, 4), (16, 0.3, 5), (196, 0.1, 20)])
def test_patches_are_drawn_without_order_and_each_alike(count, share, size):
    drawn = [drawn_patches(count, share, (3, window)) for window in range(2000)]
    assert all(len(one) == size and (np.diff(one) > 0).all() for one in drawn)
    often = np.bincount(np.concatenate(drawn), minlength=count) / 2000
    np.testing.assert_allclose(often, size / count, atol=0.05)
    np.testing.assert_array_equal(drawn_patches(count, share, (3, 7)), drawn[7])


class Tokens(nn.Module):
    """A ViT of one block, which returns the tokens that it sees."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.embed, self.block, self.prefix = nn.Conv2d(3, 4, 2, 2), nn.Identity(), prefix

    def forward(self, pixels):
        patches = self.embed(pixels).flatten(2).transpose(1, 2)
        first = torch.zeros(len(pixels), self.prefix, 4)
        return self.block(torch.cat([first, patches], 1))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_blocks_see_the_prefix_and_the_drawn_patches(prefix):
    model, pixels = Tokens(prefix), torch.randn(2, 3, 8, 8)
    whole = model(pixels)
    with RandomPatches(0.25, model.embed, model.block).forward((3, 1)):
        found = model(pixels)
    kept = [*range(prefix), *(prefix + drawn_patches(16, 0.25, (3, 1)))]
    torch.testing.assert_close(found, whole[:, kept], rtol=0, atol=0)
    assert torch.equal(model(pixels), whole)  # no hook is left


def test_blocks_of_another_form_are_refused():
    model, pixels = Tokens(9), torch.randn(2, 3, 8, 8)  # more before the patches than any ViT has
    with (
        RandomPatches(0.25, model.embed, model.block).forward((3, 1)),
        pytest.raises(
            ScoreError, match=r"fidelity.patches: expected blocks that take \(B, patches"
        ),
    ):
        model(pixels)
    assert len(model(pixels)) == 2


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_patches_are_a_vit_without_the_others(name):
    model, _ = pair(name, 1)
    inner = model.module.model
    pixels, target = images()
    before = torch.random.get_rng_state()
    got = scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(got, scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 1)))
    assert not torch.equal(
        got, scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 2))
    )
    prefix = 1 if name == "vit" else 2
    kept = [*range(prefix), *(prefix + drawn_patches(16, 0.25, (3, 1)))]
    base = getattr(inner, name)
    with torch.no_grad():  # the model's modules, by hand
        hidden = base.embeddings(pixels)[:, kept]
        for layer in base.layers if hasattr(base, "layers") else base.encoder.layer:
            hidden = layer(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        logits = inner.classifier(base.layernorm(hidden)[:, 0])
    torch.testing.assert_close(
        got, torch.nn.functional.cross_entropy(logits, target, reduction="none")
    )


def test_drawn_patches():
    assert len(drawn_patches(196, 0.25, (1,))) == 49 and len(drawn_patches(16, 0.3, (1,))) == 5
    seen = np.bincount(
        np.concatenate([drawn_patches(16, 0.25, (1, window)) for window in range(2000)])
    )
    assert abs(seen / 500 - 1).max() < 0.2
