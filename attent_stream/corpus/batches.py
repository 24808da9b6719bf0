"""Collators that turn samples of a corpus into batches. Both pickle, for spawned workers."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from attent_stream.base.epoch_number import EpochNumber
from attent_stream.corpus.columns import check_image, check_tokens, token_ids, value_of, whole_dtype
from attent_stream.corpus.conversation import IGNORED
from attent_stream.corpus.errors import require

CROP_PADDING = 4


@dataclass(frozen=True)
class TokenCollator:
    """Collate samples of a text corpus for a causal language model.

    Attributes:
        pad_id: The padding id, masked in labels and attention; None if samples are packed.
        column: The column of token ids.
        dtype: numpy's name of the type of raw bytes, `int64` for llm-foundry; not for arrays.
    """

    pad_id: int | None = None
    column: str = "tokens"
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            whole_dtype(self.dtype)

    @property
    def packed(self) -> bool:
        """Whether samples have no padding."""
        return self.pad_id is None

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate (T,) integer arrays, lists or raw bytes into int64 (B, T) tensors.

        Returns:
            `input_ids`; `labels`, an unshifted copy with -100 at `pad_id`; `attention_mask`, 0 at
            `pad_id` and 1 elsewhere.

        Raises:
            ValueError: The column is missing or holds no token ids, or samples differ in length.
        """
        dtype = None if self.dtype is None else whole_dtype(self.dtype)
        rows = [token_ids(sample, self.column, dtype) for sample in samples]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(
                f"samples of a batch must have the same shape, got {lengths[0]} to {lengths[-1]} "
                f"ids in column {self.column!r}: pack or pad them when the corpus is written, or "
                "cut them with max_seq_len"
            )
        ids = torch.from_numpy(np.stack(rows, dtype=np.int64, casting="unsafe"))
        if self.pad_id is None:
            return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
        padding = ids == self.pad_id
        return {
            "input_ids": ids,
            "labels": ids.masked_fill(padding, IGNORED),
            "attention_mask": (~padding).to(torch.int64),
        }

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Raise ValueError unless samples with these columns (name -> encoding) can be collated."""
        check_tokens(columns, self.column, None if self.dtype is None else whole_dtype(self.dtype))


@dataclass(frozen=True)
class ImageCollator:
    """Collate samples of an image corpus into (input, target).

    The augmentation depends only on `seed`, the epoch and the image's bytes. So an image looks the
    same as candidate and as lesson, with any number of workers, and after a resumption.

    Attributes:
        size: Height and width of the input in pixels; other images are resized (bilinear).
        mean, std: Of each RGB channel, for values in [0, 1].
        augment: Crop at random after 4 pixels of black padding, and flip horizontally with
            probability 1/2.
        seed: Seed of the augmentation.
        image_column, label_column: The columns of the encoded image and the class number.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augment: bool = False
    seed: int = 17
    image_column: str = "image"
    label_column: str = "label"
    _epoch: EpochNumber = field(default_factory=EpochNumber, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.size > 0, f"size must be positive, got {self.size!r}")
        require(
            len(self.mean) == 3 == len(self.std),
            f"mean and std need 3 values, got {self.mean!r}, {self.std!r}",
        )
        require(all(s > 0 for s in self.std), f"std must be positive, got {self.std!r}")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Collate images and class numbers into float32 (B, 3, size, size) and int64 (B,).

        Images are JPEG or PNG bytes, PIL images or (H, W, 3) uint8 arrays.

        Raises:
            ValueError: A column is missing, or holds no image or no class number.
        """
        given = [value_of(sample, self.image_column, "image_column") for sample in samples]
        pixels = np.stack([self._pixels(image) for image in given]).astype(np.float32)
        pixels /= 255
        pixels -= np.asarray(self.mean, np.float32)
        pixels /= np.asarray(self.std, np.float32)
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return images, torch.tensor([self._label(sample) for sample in samples], dtype=torch.int64)

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Raise ValueError unless samples with these columns (name -> encoding) can be collated."""
        check_image(columns, self.image_column, self.label_column)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next augmentations."""
        self._epoch.set(epoch)

    def _label(self, sample: Mapping[str, Any]) -> int:
        label = value_of(sample, self.label_column, "label_column")
        if isinstance(label, np.ndarray) and label.size == 1:
            label = label.item()
        if not isinstance(label, (int, np.integer)):
            raise ValueError(
                f"column {self.label_column!r} holds {label!r}, expected a class number (int): set "
                "label_column to the column of class numbers"
            )
        return int(label)

    def _pixels(self, given: Any) -> np.ndarray:
        if isinstance(given, bytes):
            with Image.open(io.BytesIO(given), formats=("JPEG", "PNG")) as image:
                rgb = image.convert("RGB")
        elif isinstance(given, (Image.Image, np.ndarray)):  # Decoded by the dataset.
            image = Image.fromarray(given) if isinstance(given, np.ndarray) else given
            rgb = image.convert("RGB")
        else:
            raise ValueError(
                f"column {self.image_column!r} holds a {type(given).__name__}, expected an image: "
                "set image_column to the column of images"
            )
        data = given if isinstance(given, bytes) else rgb.tobytes()
        if rgb.size != (self.size, self.size):
            rgb = rgb.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(rgb)
        return self._augmented(pixels, data) if self.augment else pixels

    def _augmented(self, pixels: np.ndarray, data: bytes) -> np.ndarray:
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        rng = np.random.default_rng([self.seed, self._epoch.get(), digest])
        top, left = rng.integers(0, 2 * CROP_PADDING + 1, size=2)
        padded = np.pad(
            pixels, ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0))
        )
        crop = padded[top : top + self.size, left : left + self.size]
        return crop[:, ::-1] if rng.random() < 0.5 else crop
