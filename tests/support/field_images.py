"""Jobs of images: classes, masks, boxes, numbers, captions."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from composer.loss import soft_cross_entropy
from composer.models import ComposerClassifier, HuggingFaceModel
from field_jobs import (
    CLASSES,
    IGNORED,
    SCORED,
    SIDE,
    VOCAB,
    Job,
    class_scores,
    number_scores,
    pairs,
    picture,
    share_scores,
    walk,
    written,
    yes_no_scores,
)
from field_nets import (
    VISION,
    Autocast,
    Detector,
    Features,
    Pairs,
    Plain,
    Probabilities,
    TwoHeads,
    Views,
    Weighed,
)
from field_own import seeded
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy
from transformers import ViTConfig, ViTForImageClassification

IMAGE = {"image": "ndarray:float32"}


def _labelled(rng):
    image, label = picture(rng)
    return {"image": image, "class": label}


def _vit_sample(rng):
    image, label = picture(rng)
    return {"pixel_values": image, "labels": label}


def _sometimes(rng):
    image, label = picture(rng)
    return {"image": image, "class": IGNORED if rng.random() < 0.05 else label}


def _column(rng):
    image, label = picture(rng)
    return {"image": image, "class": np.array([label])}


def _onehot(rng):
    image, label = picture(rng)
    return {"image": image, "class": np.eye(CLASSES, dtype=np.float32)[label]}


def _many(rng):
    image, label = picture(rng)
    return {"image": image, "class": (rng.random(CLASSES) < 0.3 + 0.1 * label).astype(np.float32)}


def _number(rng):
    image, _ = picture(rng)
    return {"image": image, "class": image.mean((1, 2)) * 3}


def _two(rng):
    image, label = picture(rng)
    return {"image": image, "class": label, "other": int(label % 2)}


def _weight(rng):
    image, label = picture(rng)
    return {"image": image, "class": label, "other": np.float32(rng.random() + 0.5)}


def _mask(ignored):
    def sample(rng):
        image, label = picture(rng)
        mask = np.full((SIDE, SIDE), label, np.int64)
        mask[: SIDE // 2] = (label + 1) % CLASSES
        mask[rng.random((SIDE, SIDE)) < 0.3] = ignored
        return {"image": image, "class": mask}

    return sample


def _boxes(rng):
    image, label = picture(rng)
    count = int(rng.integers(1, 4))
    boxes, labels = rng.random((count, 4)), (label + np.arange(count)) % CLASSES
    return {"image": image, "boxes": boxes.astype(np.float32), "labels": labels}


def _detection(samples: list) -> tuple[list, list]:
    images = [torch.from_numpy(sample["image"]) for sample in samples]
    return images, [
        {name: torch.from_numpy(sample[name]) for name in ("boxes", "labels")} for sample in samples
    ]


def _triple(samples: list) -> tuple[Tensor, Tensor, Tensor]:
    image, label = pairs("image", "class")(samples)
    return image, label, torch.tensor([sample["other"] for sample in samples])


def _image_alone(samples: list) -> Tensor:
    return torch.from_numpy(np.stack([sample["image"] for sample in samples]))


def _captioned(rng):
    image, label = picture(rng)
    tokens = np.minimum((walk(rng) + label) % VOCAB, VOCAB - 2)
    tokens[-1] = VOCAB - 1
    return {"pixel_values": image, "input_ids": tokens}


def _vit() -> HuggingFaceModel:
    config = ViTConfig(
        **VISION, num_labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return HuggingFaceModel(ViTForImageClassification(config), tokenizer=None)


def _classifier(net: Callable[[], nn.Module], **options) -> Callable[[], ComposerClassifier]:
    return seeded(lambda: ComposerClassifier(net(), num_classes=CLASSES, **options))


def _segmenter() -> nn.Module:
    return nn.Conv2d(3, CLASSES, 3, padding=1)


def _plain(
    loss_of: Callable, out: int = CLASSES, cls: type = Plain, **options
) -> Callable[[], Plain]:
    return seeded(lambda: cls(Features(out), loss_of, **options))


def _weighed_losses(model, batch):
    return F.cross_entropy(model.net(batch[0]), batch[1], reduction="none") * batch[2]


def _detected(model, batch):
    return torch.stack(
        [
            model.loss(model.forward(one), one)
            for one in zip(*[[[item] for item in part] for part in batch], strict=True)
        ]
    )


def _two_losses(model, batch):
    return sum(
        F.cross_entropy(out, batch[1 + i], reduction="none")
        for i, out in enumerate(model.forward(batch))
    )


def _reads(model, batch):
    return model.net(batch[0]), batch[1]


def _reads_module(model, batch):
    return model.module(batch[0]), batch[1]


def _reads_map(model, batch):
    return _reads_module(model, batch)[0].movedim(1, -1), batch[1]


def _reads_plain_map(model, batch):
    return _reads(model, batch)[0].movedim(1, -1), batch[1]


_WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.25])
_accuracy = partial(MulticlassAccuracy, num_classes=CLASSES, average="micro")


def _class_weighted(outputs, target):
    return F.cross_entropy(outputs, target, weight=_WEIGHTS.to(outputs.dtype))


def _quarter(outputs, target):
    return F.cross_entropy(outputs, target) / 4


def _with_penalty(outputs, target):
    return F.cross_entropy(outputs, target) + 0.1 * outputs.square().mean()


def _focal(outputs, target):
    losses = F.cross_entropy(outputs, target, reduction="none")
    return ((1 - (-losses).exp()).square() * losses).mean()


def _each(loss_of):
    """What is a mean over samples, of each."""

    def losses(model, batch):
        parts = zip(model.net(batch[0]).split(1), batch[1].split(1), strict=True)
        return torch.stack([loss_of(*part) for part in parts])

    return class_scores(_reads) | {"losses": losses}


def _squeezed(outputs, target):
    return F.cross_entropy(outputs, target.squeeze(1))


def _pair(name: str, sample: Callable, model: Callable, kind: str = "int", **options) -> Job:
    settings = {
        "write": written(IMAGE | {"class": kind}, sample),
        "collate": pairs("image", "class"),
    } | options
    return Job(name=name, model=model, **settings)


_ARRAY, _INTS = "ndarray:float32", "ndarray:int64"

JOBS = [
    Job(
        name="ViT",
        model=seeded(_vit),
        write=written({"pixel_values": _ARRAY, "labels": "int"}, _vit_sample),
        expected=SCORED,
        **class_scores(
            lambda model, batch: (model.model(batch["pixel_values"]).logits, batch["labels"])
        ),
    ),
    _pair(
        "image classifier",
        _labelled,
        _classifier(Features),
        expected=SCORED,
        **class_scores(_reads_module),
    ),
    _pair(
        "image classifier, 5% of samples without a label",
        _sometimes,
        _plain(F.cross_entropy),
        **class_scores(_reads),
    ),
    _pair(
        "segmentation, 255 ignored",
        _mask(255),
        seeded(lambda: Plain(_segmenter(), partial(F.cross_entropy, ignore_index=255))),
        _INTS,
        **class_scores(_reads_plain_map, 255),
    ),
    _pair(
        "segmentation, -1 ignored",
        _mask(-1),
        _classifier(
            _segmenter,
            loss_fn=partial(soft_cross_entropy, ignore_index=-1),
            train_metrics=_accuracy(ignore_index=-1),
            val_metrics=_accuracy(ignore_index=-1),
        ),
        _INTS,
        **class_scores(_reads_map, -1),
    ),
    Job(
        name="detection",
        model=seeded(Detector),
        write=written(IMAGE | {"boxes": _ARRAY, "labels": _INTS}, _boxes),
        collate=_detection,
        losses=_detected,
        spec={
            "get_num_samples_in_batch": lambda batch: len(batch[0]),
            "split_batch": lambda batch, size: [batch],
        },
    ),
    _pair(
        "regression",
        _number,
        _plain(F.mse_loss, 3),
        _ARRAY,
        expected=SCORED,
        **number_scores(_reads),
    ),
    _pair(
        "L1 regression", _number, _plain(F.l1_loss, 3), _ARRAY, **number_scores(_reads, torch.abs)
    ),
    _pair(
        "Huber regression",
        _number,
        _plain(partial(F.huber_loss, delta=0.5), 3),
        _ARRAY,
        **number_scores(
            _reads,
            lambda gap: torch.where(gap.abs() < 0.5, gap.square() / 2, 0.5 * (gap.abs() - 0.25)),
        ),
    ),
    _pair(
        "several labels (BCE)",
        _many,
        _classifier(
            Features,
            loss_fn=F.binary_cross_entropy_with_logits,
            train_metrics=MultilabelAccuracy(CLASSES),
            val_metrics=MultilabelAccuracy(CLASSES),
        ),
        _ARRAY,
        expected=SCORED,
        **yes_no_scores(_reads_module),
    ),
    _pair(
        "one-hot cross-entropy", _onehot, _plain(F.cross_entropy), _ARRAY, **share_scores(_reads)
    ),
    _pair(
        "one-hot BCE",
        _onehot,
        _plain(F.binary_cross_entropy_with_logits),
        _ARRAY,
        **yes_no_scores(_reads),
    ),
    Job(
        name="columns image and class",
        model=_plain(F.cross_entropy, columns=("image", "class")),
        write=written(IMAGE | {"class": "int"}, _labelled),
        **class_scores(lambda model, batch: (model.net(batch["image"]), batch["class"])),
    ),
    _pair(
        "labels of shape (B, 1)",
        _column,
        _plain(_squeezed),
        _INTS,
        **class_scores(lambda model, batch: (model.net(batch[0]), batch[1].squeeze(1))),
    ),
    _pair(
        "class weights", _labelled, _plain(_class_weighted), **class_scores(_reads, weight=_WEIGHTS)
    ),
    _pair(
        "image classifier, loss in bfloat16",
        _labelled,
        _plain(F.cross_entropy, cls=Autocast),
        **class_scores(_reads),
        close=0.02,
    ),
    _pair(
        "image classifier, label smoothing",
        _labelled,
        _classifier(Features, loss_fn=partial(F.cross_entropy, label_smoothing=0.1)),
        **class_scores(_reads_module, label_smoothing=0.1),
    ),
    _pair(
        "image classifier, loss divided by a constant",
        _labelled,
        _plain(_quarter),
        **_each(_quarter),
        times=4.0,
    ),
    _pair(
        "image classifier, penalty added", _labelled, _plain(_with_penalty), **_each(_with_penalty)
    ),
    _pair("focal loss", _labelled, _plain(_focal), **_each(_focal)),
    _pair(
        "probabilities outside of training",
        _labelled,
        _plain(F.cross_entropy, cls=Probabilities),
        **class_scores(_reads),
    ),
    Job(
        name="two heads",
        model=seeded(TwoHeads),
        write=written(IMAGE | {"class": "int", "other": "int"}, _two),
        collate=_triple,
        losses=_two_losses,
    ),
    Job(
        name="weights of samples in the batch",
        model=_plain(None, cls=Weighed),
        write=written(IMAGE | {"class": "int", "other": "float32"}, _weight),
        collate=_triple,
        **class_scores(_reads) | {"losses": _weighed_losses},
    ),
    Job(
        name="CLIP",
        model=seeded(Pairs),
        write=written({"pixel_values": _ARRAY, "input_ids": _INTS}, _captioned),
        losses=None,
    ),
    Job(
        name="SimCLR",
        model=seeded(Views),
        write=written(IMAGE | {"class": "int"}, _labelled),
        collate=_image_alone,
        losses=None,
    ),
]
