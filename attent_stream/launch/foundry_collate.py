"""llm-foundry's collate function of packed text, which says that it is packed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attent_stream.base.errors import ScoreError

# Counts of each row's tokens. Without them llm-foundry counts a batch's tokens by its labels.
_COUNTS = ("total_tokens", "loss_generating_tokens")


@dataclass(frozen=True)
class PackedText:
    """Collate tokens that were packed when the corpus was written, as llm-foundry does.

    Args:
        collate: llm-foundry's collate function.
    """

    collate: Callable[[list], Any]

    @property
    def packed(self) -> bool:
        """Always. Whether samples have one length is seen when they are to be cut."""
        return True

    def __call__(self, samples: list) -> Any:
        return self.collate(samples)

    def to_cut(self, samples: list) -> dict[str, Tensor]:
        """Collate samples without the counts of each row's tokens.

        Raises:
            ScoreError: The samples differ in length, so llm-foundry would pad them.
        """
        lengths = {len(sample) for sample in samples}
        if len(lengths) > 1:
            raise ScoreError(
                f"arrange.pieces needs packed samples of one length, got {min(lengths)} to "
                f"{max(lengths)} tokens"
            )
        batch = self.collate(samples)
        return {name: value for name, value in batch.items() if name not in _COUNTS}
