"""A score that is a user's function of the model and a batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import batch_length, describe
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.reading import Reading
from attent_stream.score.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class FunctionScorer(Scorer):
    """A scorer whose forward is a user's function.

    Args:
        function: ``(model, batch) -> (B,)`` float tensor.
        rows: Counts the samples of a batch.
    """

    function: Callable[[Module, Any], Tensor]
    rows: Callable[[Any], int] = batch_length

    def read_by(self, reading: Reading | None, rows: Callable[[Any], int]) -> "FunctionScorer":
        """Return a scorer that counts samples with ``rows``."""
        return replace(self, rows=rows)

    def forward(self, model: Module, batch: Any) -> Any:
        """What the function returns.

        Raises:
            ScoreError: The function raises anything but an out-of-memory error.
        """
        try:
            return self.function(model, batch)
        except Exception as error:
            if out_of_memory(error):
                raise
            kind = type(error).__name__
            raise ScoreError(
                f"score {self.name!r} raised {kind} on {describe(batch)}: {error}"
            ) from error

    def scores(self, model: Module, batch: Any, draw: tuple[int, ...] = ()) -> Tensor:
        """Score a batch, float32 of shape (B,), detached.

        Raises:
            ScoreError: The function raises, or returns anything but a float tensor of shape (B,).
        """
        scores, expected = self.forward(model, batch), (self.rows(batch),)
        if not isinstance(scores, Tensor):
            got = describe(scores)
        elif tuple(scores.shape) == expected and scores.is_floating_point():
            return scores.detach().float()
        else:
            got = f"{scores.dtype} of shape {tuple(scores.shape)}"
        raise ScoreError(
            f"score {self.name!r} must return a float tensor of shape {expected}, got {got}"
        )
