"""What is still to be told of a choice that a thread made before a checkpoint was written."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.teach.packing import unpacked
from attent_stream.window.choice import Choice
from attent_stream.window.metrics import COUNTS, choice_metrics


@dataclass(frozen=True, kw_only=True)
class Untold:
    """A choice's scores and metrics: a resumed run chooses nothing again, so it has no others.

    Args:
        scores: ``Choice.scores`` as float32; None if there are none.
        measured: Its metrics and its counts, as ``choice_metrics`` returns them; None if they were
            not kept.
    """

    scores: NDArray[np.float32] | None
    measured: tuple[dict[str, float], dict[str, int]] | None

    @classmethod
    def of(cls, choice: Choice, stream_starts: NDArray[np.int64]) -> "Untold":
        """What is to be told of a choice."""
        scores = None if choice.scores is None else choice.scores.astype(np.float32)
        metrics, counts = choice.measured or choice_metrics(choice, stream_starts)
        return cls(scores=scores, measured=({k: float(v) for k, v in metrics.items()}, counts))

    @classmethod
    def load(cls, value: Any) -> "Untold | None":
        """From a checkpoint.

        Raises:
            ValueError, TypeError, KeyError: It is damaged.
        """
        if value is None:
            return None
        measured = value["measured"]
        return cls(
            scores=unpacked(value["scores"]),
            measured=None if measured is None else _measured(*measured),
        )

    def told(self, choice: Choice) -> Choice:
        """Return the choice with what is to be told of it.

        Raises:
            ValueError: It has another number of candidates.
        """
        shape = choice.window.ids.shape
        if self.scores is not None and self.scores.shape != shape:
            raise ValueError(
                "the checkpoint's teaching position is damaged: expected scores of shape "
                f"{shape}, got {self.scores.shape}"
            )
        return replace(choice, scores=self.scores, measured=self.measured)


def _measured(metrics: Any, counts: Any) -> tuple[dict[str, float], dict[str, int]]:
    if not all(type(value) in (int, float) for value in metrics.values()):
        raise ValueError(f"expected numbers as metrics, got {str(metrics):.80}")
    if set(counts) != set(COUNTS) or not all(type(n) is int and n >= 0 for n in counts.values()):
        raise ValueError(f"expected counts of {', '.join(COUNTS)}, got {str(counts):.80}")
    return metrics, counts
