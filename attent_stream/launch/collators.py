"""Collators that cut or mask the tokens of samples."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import torch

from attent_stream.arrange.cutting import Packed
from attent_stream.base.epoch_number import EpochNumber, VariesByEpoch
from attent_stream.corpus.columns import token_ids, whole_dtype
from attent_stream.corpus.conversation import IGNORED


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutTokens:
    """Cut each sample to its first ``max_seq_len`` tokens before another collator.

    ``column`` and ``dtype`` are as in ``TokenCollator``.
    """

    collate: Callable[[list], Any]
    max_seq_len: int
    column: str = "tokens"
    dtype: str | None = None

    def __call__(self, samples: list[Mapping[str, Any]]) -> Any:
        dtype = None if self.dtype is None else whole_dtype(self.dtype)
        return self.collate(
            [
                {**sample, self.column: token_ids(sample, self.column, dtype)[: self.max_seq_len]}
                for sample in samples
            ]
        )

    @property
    def packed(self) -> bool:
        """Whether the wrapped collator has packed samples."""
        return isinstance(self.collate, Packed) and self.collate.packed

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch to the wrapped collator."""
        if isinstance(self.collate, VariesByEpoch):
            self.collate.set_epoch(epoch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskTokens:
    """Mask a causal LM collator's batches as BERT does (Devlin et al., 2019, section 3.1).

    Of the masked tokens 80% become the mask token, 10% a random token and 10% stay. A mask depends
    only on ``seed``, the epoch and the sample's tokens, so a candidate is scored with the mask of
    its lesson. ``input_ids`` and ``labels`` are (B, T) int64; unmasked labels are -100.
    """

    collate: Callable[[list], Mapping[str, torch.Tensor]]
    mask_token_id: int
    vocab_size: int
    probability: float = 0.15
    seed: int = 17
    _epoch: EpochNumber = dataclasses.field(
        default_factory=EpochNumber, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        if not 0 < self.probability < 1:
            raise ValueError(f"expected probability between 0 and 1, got {self.probability}")

    def __call__(self, samples: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.collate(samples))
        ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
        for row in range(len(ids)):
            rng = np.random.default_rng(
                [self.seed, self._epoch.get(), crc32(ids[row].numpy().tobytes())]
            )
            draw, action = rng.random((2, ids.shape[1]))
            masked = torch.from_numpy(draw < self.probability) & (labels[row] != IGNORED)
            labels[row, ~masked] = IGNORED
            ids[row, masked & torch.from_numpy(action < 0.8)] = self.mask_token_id
            swap = masked & torch.from_numpy(action >= 0.9)
            other = rng.integers(0, self.vocab_size, ids.shape[1])
            ids[row] = torch.where(swap, torch.from_numpy(other), ids[row])
        return {**batch, "input_ids": ids, "labels": labels}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next masks."""
        self._epoch.set(epoch)
