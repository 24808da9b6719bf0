"""A small ViT, also as a plain module."""

import torch
import transformers

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def vit():
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=8, num_labels=5, **SMALL)
    )


class Logits(torch.nn.Module):
    """A Hugging Face image classifier as a plain module."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, pixels):
        return self.inner(pixels).logits
