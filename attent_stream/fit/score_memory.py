"""What is remembered of scores over the fits of a run: the ledger, and the recorder that fills it
from training forwards.
"""

from collections.abc import Callable
from typing import Any

from composer.utils import dist

from attent_stream.data.dataset import TeachingDataset
from attent_stream.effects.recorder import Recorder
from attent_stream.fit.settings import Settings
from attent_stream.memory.ledger import Ledger
from attent_stream.memory.ledger_settings import open_ledger

LEAVE = "load_ignore_keys: ['state/algorithms*']"


class Memory:
    """A ledger that comes from a checkpoint, from an earlier fit, or empty.

    Args:
        score: As it was asked for; checkpoints that do not name their score's are of it.

    Attributes:
        ledger: None where nothing is remembered.
        recorder: None where training forwards are not recorded.
    """

    def __init__(self, score: str | Callable) -> None:
        self.ledger: Ledger | None = None
        self.recorder: Recorder | None = None
        self._asked = self._score = _named(score)
        # A checkpoint's ledger, until the data set is there
        self._kept: dict[str, Any] | None = None
        self._kept_of = ""  # which score it is of

    def state_dict(self) -> dict[str, Any]:
        """The ledger's state, or None, and the name of its score."""
        return {
            "ledger": None if self.ledger is None else self.ledger.state_dict(),
            "score": self._score,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state when ``open`` is called."""
        self.forget()
        self._kept = state["ledger"]
        self._kept_of = state.get("score") or self._asked

    def forget(self) -> None:
        """Begin with nothing."""
        self.ledger, self.recorder, self._kept = None, None, None

    def open(self, dataset: TeachingDataset, settings: Settings, *, single_pass: bool) -> None:
        """Have a ledger where there is to be one, for a fit.

        Args:
            dataset: What it trains on.
            settings: As they are in this run.
            single_pass: No sample comes again, and nobody has asked for its score to be remembered.

        Raises:
            ValueError: The checkpoint's ledger or the last fit's is of other samples, another kind
                or another score.
        """
        self._score = _named(settings.score)
        if single_pass or not _of_use(settings):
            self.ledger = None
        elif self.ledger is None:
            self.ledger = open_ledger(
                settings.ledger,
                dataset,
                ages=settings.teacher.interval.expires,
                local_rank=dist.get_local_rank(),
                ranks_per_node=dist.get_local_world_size(),
                progress=settings.progress,
            )
        if self.ledger is not None and self._kept is not None:
            try:
                if self._kept_of != self._score:
                    raise ValueError(
                        f"the checkpoint's ledger is of score {self._kept_of!r}, this run's of "
                        f"{self._score!r}"
                    )
                self.ledger.load_state_dict(self._kept)
            except ValueError as error:
                raise ValueError(
                    f"{error}: go on with what the checkpoint had, or leave its scores behind with "
                    f"{LEAVE}"
                ) from error
        elif self.ledger is not None and len(self.ledger) != dataset.num_samples:
            raise ValueError(
                f"the last fit's ledger is of a data set of {len(self.ledger)} samples, this one "
                f"has {dataset.num_samples}: go on "
                f"with the same streams, or make a new AtteNT"
            )
        self._kept = None

    def flush(self) -> None:
        """Put what has been recorded into the ledger; all ranks call this together."""
        if self.recorder is not None:
            self.recorder.flush()


def _of_use(settings: Settings) -> bool:
    """Whether scores can be used again where samples come again."""
    recorded = settings.record != "never"
    return settings.teacher.select != "random" and (
        recorded or settings.teacher.interval.outlasts_an_epoch
    )


def _named(score: str | Callable) -> str:
    return score if isinstance(score, str) else "a callable"
