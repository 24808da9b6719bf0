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
                        f"the checkpoint's ledger is of score {self._loaded_of!r}, this run's of "
                        f"{self._score!r}"
                    )
                self.ledger.load_state_dict(self._loaded)
            except ValueError as error:
                raise ValueError(
                    f"{error}: go on with what the checkpoint had, or leave its scores behind with "
                    f"{LEAVE}"
                ) from error
        elif self.ledger is not None and len(self.ledger) != dataset.num_samples:
            raise ValueError(
                f"the last fit's ledger is of a data set of {len(self.ledger)} samples, this one "
                f"has {dataset.num_samples}: go on with the same streams, or make a new AtteNT"
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
