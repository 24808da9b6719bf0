"""Smaller images, against a model that is given small images."""

import pytest
import torch
import torchvision
from block_models import images, pair, scores
from composer.models import ComposerClassifier, HuggingFaceModel

from attent_stream.base.errors import ScoreError
from attent_stream.score.fidelity import Fidelity


def test_resolution_is_the_model_given_small_images():
    model, _ = pair("vit", 1)
    pixels, target = images()
    small = torch.nn.functional.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = model.module.model(pixel_values=small, interpolate_pos_encoding=True).logits
    want = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(scores(model, (pixels, target), Fidelity(resolution=0.45)), want)
    wrapped = HuggingFaceModel(model.module.model, tokenizer=None, use_logits=True).eval()
    torch.testing.assert_close(
        scores(wrapped, {"pixel_values": pixels, "labels": target}, Fidelity(resolution=0.45)), want
    )
    strict = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=5,
    )
    with pytest.raises(ScoreError, match="fidelity resolution_0.5 does not work with this model"):
        scores(ComposerClassifier(strict, num_classes=5).eval(), images(), Fidelity(resolution=0.5))
    net = ComposerClassifier(torchvision.models.resnet18(num_classes=5), num_classes=5).eval()
    torch.testing.assert_close(
        scores(net, (pixels, target), Fidelity(resolution=0.5)), scores(net, (small, target))
    )
