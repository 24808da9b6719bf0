"""Models of images, tiny."""

from collections.abc import Callable
from typing import Any

import torch
from composer.models import ComposerModel
from field_jobs import CLASSES, LENGTH, SIDE, VOCAB
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
}


class Features(nn.Sequential):
    """Of an image."""

    def __init__(self, out: int = CLASSES) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, out),
        )


class Plain(ComposerModel):
    """``loss_of(outputs, target)`` of a batch (input, target), or of the columns that are named."""

    def __init__(
        self, net: nn.Module, loss_of: Callable[[Any, Any], Any], columns: tuple = (0, 1)
    ) -> None:
        super().__init__()
        self.net, self.loss_of, self.columns = net, loss_of, columns

    def forward(self, batch):
        return self.net(batch[self.columns[0]])

    def loss(self, outputs, batch):
        return self.loss_of(outputs, batch[self.columns[1]])


class Probabilities(Plain):
    """Outside of training its outputs are probabilities."""

    def forward(self, batch):
        logits = super().forward(batch)
        return logits if self.training else logits.softmax(-1)


class Autocast(Plain):
    """In bfloat16, and so is its loss; Composer's ``amp_bf16`` does nothing on a CPU."""

    def forward(self, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(batch)


class TwoHeads(ComposerModel):
    """A class and another one; batches (image, class, other)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Features(), Features(2)

    def forward(self, batch):
        return self.first(batch[0]), self.second(batch[0])

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs[0], batch[1]) + F.cross_entropy(outputs[1], batch[2])


class Weighed(Plain):
    """Batches (image, class, weight of the sample)."""

    def loss(self, outputs, batch):
        return (F.cross_entropy(outputs, batch[1], reduction="none") * batch[2]).mean()


class Pairs(ComposerModel):
    """CLIP, with its own contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        text = {
            key: VISION[key]
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
            )
        }
        text |= {
            "vocab_size": VOCAB,
            "max_position_embeddings": LENGTH,
            "eos_token_id": VOCAB - 1,
            "bos_token_id": 0,
        }
        self.clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))

    def forward(self, batch):
        return self.clip(**batch, return_loss=True)

    def loss(self, outputs, batch):
        return outputs.loss


class Views(ComposerModel):
    """Two views of an image attract, those of others repel (SimCLR); batches are images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Features(8)

    def forward(self, batch):
        return F.normalize(self.net(batch)), F.normalize(self.net(batch.flip(-1)))

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs[0] @ outputs[1].T / 0.1, torch.arange(len(batch)))


class Detector(ComposerModel):
    """As torchvision's: batches of lists; losses from a training forward, else predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Features(4 + CLASSES)

    def forward(self, batch):
        images, targets = batch
        outputs = self.net(torch.stack(list(images)))
        if not self.training:
            return [
                {"boxes": one[None, :4], "scores": one[4:].softmax(0).amax()[None]}
                for one in outputs
            ]
        kinds, boxes = [], []
        for one, target in zip(outputs, targets, strict=True):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                boxes.append(F.smooth_l1_loss(one[:4], box))
                kinds.append(F.cross_entropy(one[4:], label))
        return {
            "loss_classifier": torch.stack(kinds).mean(),
            "loss_box_reg": torch.stack(boxes).mean(),
        }

    def loss(self, outputs, batch):
        return sum(outputs.values())
