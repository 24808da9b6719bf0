"""Random patches, against a ViT that is run module by module without the others."""

import numpy as np
import pytest
import torch
from block_models import images, pair, scores

from attent_stream.experimental.patches import drawn_patches
from attent_stream.score.fidelity import Fidelity


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
        for layer in base.encoder.layer:
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
