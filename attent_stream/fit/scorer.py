"""What scores the candidates of a fit."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from composer import State
from torch import Tensor
from torch.nn import Module

from attent_stream.base.span import Clock
from attent_stream.model.reading import Reading
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.choice import Choice


def known_state(resumed: dict[str, Any] | None, before: "Scorer | None") -> dict[str, Any]:
    """What a fit's scorer goes on from: a checkpoint, the fit before, or nothing.

    Args:
        resumed: AtteNT's state from a checkpoint, or None.
        before: The scorer of the fit before, or None.
    """
    return resumed or ({} if before is None else before.state_dict())


class Scorer(Protocol):
    """Scores the candidates of a fit. All ranks call its methods together."""

    @property
    def models(self) -> Sequence[Module]:
        """The models that forward candidates."""

    @property
    def reading(self) -> Reading | None:
        """How the learner's outputs are read; None if not known."""

    @property
    def cost(self) -> float:
        """Cost of scoring one candidate, in forwards of the learner."""

    def begin(self, state: State, epoch: TaughtEpoch) -> None:
        """Get ready, before each batch.

        Raises:
            ScoreError: Candidates cannot be scored.
        """

    def prepared(self, state: State, candidates: Any) -> Any:
        """A batch of candidates as it is scored."""

    def __call__(self, state: State, batch: Any, window: tuple[int, int]) -> Tensor:
        """Score what ``prepared`` returned, floating point of shape (B,) on the device.

        Args:
            state: The Trainer's state.
            batch: What to score.
            window: Epoch and index of the candidates' window.

        Raises:
            ScoreError: It cannot be scored.
        """

    def window_chosen(self, state: State, choice: Choice) -> dict[str, float]:
        """Note that a scored window was chosen; returns metrics by name."""

    def between_windows(self, clock: Clock) -> None:
        """Do what is due between two windows."""

    def learns_from(self, batches: int) -> bool:
        """Whether it learns from the batch that follows this many batches."""

    def learn(self, state: State) -> None:
        """Learn from the current batch."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, the same on all ranks."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state."""
