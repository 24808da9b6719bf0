"""The ledger over the fits of a run: empty, from a checkpoint, or from the fit before."""

from collections.abc import Callable
from typing import Any

from composer.utils import dist

from attent_stream.data.dataset import TeachingDataset
from attent_stream.fit.run import Run
from attent_stream.memory.ledger import Ledger
from attent_stream.memory.open_ledger import Request, open_ledger
from attent_stream.memory.remember import NEVER

LEAVE = "load_ignore_keys: ['state/algorithms*']"


class ScoreMemory:
    """Keeps a run's ledger.

    Args:
        score: Score as it was asked for. Checkpoints that do not name their score have this one.

    Attributes:
        ledger: None if nothing is remembered.
    """

    def __init__(self, score: str | Callable) -> None:
        self.ledger: Ledger | None = None
        self._asked = self._score = _named(score)
        self._loaded: dict[str, Any] | None = None  # a checkpoint's ledger, until a fit starts
        self._loaded_of = ""  # its score

    def state_dict(self) -> dict[str, Any]:
        """The ledger's state, or None, and the name of its score."""
        ledger = None if self.ledger is None else self.ledger.state_dict()
        return {"ledger": ledger, "score": self._score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state when ``open`` is called."""
        self.forget()
        self._loaded = state["ledger"]
        self._loaded_of = state.get("score") or self._asked

    def forget(self) -> None:
        """Begin with nothing."""
        self.ledger, self._loaded = None, None

    def open(self, dataset: TeachingDataset, run: Run) -> Ledger | None:
        """Have a ledger for a fit if one is needed.

        Args:
            dataset: What is trained on.
            run: What AtteNT does in this run.

        Raises:
            ValueError: The ledger of the checkpoint, or of the fit before, is of other samples,
                another kind or another score.
        """
        self._score = _named(run.score)
        if not _is_needed(run):
            self.ledger = None
        elif self.ledger is None:
            self.ledger = open_ledger(
                Request(
                    settings=run.remember,
                    dataset=dataset,
                    ages=run.teacher.interval.expires,
                    local_rank=dist.get_local_rank(),
                    ranks_per_node=dist.get_local_world_size(),
                )
            )
        if self.ledger is not None and self._loaded is not None:
            try:
                if self._loaded_of != self._score:
                    raise ValueError(
                        f"expected the checkpoint to have a ledger of score {self._score!r}, got "
                        f"{self._loaded_of!r}"
                    )
                self.ledger.load_state_dict(self._loaded)
            except ValueError as error:
                raise ValueError(
                    f"{error}: resume with the checkpoint's settings, or without its scores by "
                    f"{LEAVE}"
                ) from error
        elif self.ledger is not None and len(self.ledger) != dataset.num_samples:
            raise ValueError(
                f"expected the data set of the last fit with {len(self.ledger)} samples, got "
                f"{dataset.num_samples} samples: use the same streams, or create a new AtteNT"
            )
        self._loaded = None
        return self.ledger


def _is_needed(run: Run) -> bool:
    """Whether scores can be used again when samples come again."""
    recorded = run.remember.when != NEVER
    chooses = run.teacher.select != "random"
    return chooses and (recorded or run.teacher.interval.outlasts_an_epoch)


def _named(score: str | Callable) -> str:
    return score if isinstance(score, str) else "a callable"
