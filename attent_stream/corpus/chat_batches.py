"""A collator that pads conversations to batches. It pickles, for spawned workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from attent_stream.corpus.columns import check_tokens, token_ids, value_of
from attent_stream.corpus.conversation import IGNORED
from attent_stream.corpus.errors import require


@dataclass(frozen=True, kw_only=True)
class ChatCollator:
    """Collate samples of a corpus of conversations for a causal language model.

    Attributes:
        pad_id: The id that fills up shorter samples, on the right.
        max_seq_len: Longer samples are cut to so many tokens; None: they are not.
        column, label_column: The columns of token ids and of labels.
    """

    pad_id: int = 0
    max_seq_len: int | None = None
    column: str = "input_ids"
    label_column: str = "labels"

    def __post_init__(self) -> None:
        require(self.pad_id >= 0, f"pad_id must be a token id, got {self.pad_id}")
        good = self.max_seq_len is None or self.max_seq_len >= 2
        require(good, f"max_seq_len must be at least 2, got {self.max_seq_len}")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate integer arrays of shape (T,) into int64 tensors of shape (B, longest T).

        Returns:
            ``input_ids``, padded with ``pad_id``; ``labels``, padded with -100;
            ``attention_mask``, 0 where padded and 1 elsewhere.

        Raises:
            ValueError: A column is missing, or a sample has not as many labels as ids.
        """
        ids, labels = [], []
        for sample in samples:
            row = token_ids(sample, self.column, None)[: self.max_seq_len]
            own = np.asarray(value_of(sample, self.label_column, "label_column"))
            if own.dtype.kind not in "iu" or own[: self.max_seq_len].shape != row.shape:
                raise ValueError(
                    f"column {self.label_column!r} holds {own.dtype.name} of shape {own.shape}, "
                    f"expected a whole number for each of the {len(row)} ids in {self.column!r}"
                )
            ids.append(torch.from_numpy(row.astype(np.int64)))
            labels.append(torch.from_numpy(own[: self.max_seq_len].astype(np.int64)))
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(mask, batch_first=True, padding_value=0),
        }

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Raise ValueError unless samples with these columns (name -> encoding) can be collated."""
        check_tokens(columns, self.column, None)
        if self.label_column not in columns:
            listed = ", ".join(f"{name!r} ({encoding})" for name, encoding in columns.items())
            raise ValueError(
                f"there is no column {self.label_column!r}, only {listed}: set label_column to one "
                "of these, or write conversations with attent-stream corpus chat"
            )
