"""Scores candidates by how they are like a target. No model is asked."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from composer import State
from composer.utils import dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from attent_stream.base.span import Clock
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.model.reading import Reading
from attent_stream.score.recipe import Likeness
from attent_stream.score.views import VIEWS
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED

# Samples of the first window that are counted before candidates are scored.
_FIRST = 1024
_BEST, _WORST = 0.99, 0.1  # quantiles of candidates and target that are compared

log = logging.getLogger(__name__)


class TargetScorer:
    """Scores the candidates of one fit by their views.

    Args:
        likeness: Scores views, and counts the stream.
        view: Name of the view in ``VIEWS``.
        loader: Has the candidates.
        aside: Views of the target's samples that were kept aside.
    """

    def __init__(
        self, likeness: Likeness, view: str, loader: TeachingDataLoader, aside: list[NDArray]
    ) -> None:
        self._likeness, self._view, self._loader, self._aside = likeness, view, loader, aside
        self._compared = False

    @property
    def models(self) -> list[Module]:
        """No model forwards candidates."""
        return []

    @property
    def reading(self) -> Reading | None:
        """No outputs are read."""
        return None

    @property
    def cost(self) -> float:
        """Cost of scoring one candidate, in forwards of the learner: none."""
        return 0.0

    def begin(self, state: State, epoch: TaughtEpoch) -> None:
        """Count samples of the first window, if nothing of the stream was counted yet. They are
        those that are trained on meanwhile. All ranks must call this together.
        """
        choice = epoch.segment.choice
        if self._likeness.ready or choice is None:
            return
        window, dataset = choice.window, self._loader.dataset
        rows = min(len(window.ids), -(-_FIRST // dataset.row_size))
        mine = epoch.order.of_rank(window.ids[:rows], epoch.rank)
        # Replicas read the same samples, and each would count them.
        if dist.get_global_rank() % (dataset.replication or 1) == 0:
            for ids in mine:
                self._likeness.count(VIEWS.get(self._view)(self._loader.collated(ids)))
        self._likeness.advance()

    def prepared(self, state: State, candidates: Any) -> Any:
        """A batch of candidates as it is scored: the worker's view of it."""
        return candidates

    def __call__(self, state: State, batch: NDArray, window: tuple[int, int]) -> Tensor:
        """Score a batch of candidates, float32 of shape (B,) on the learner's device.

        Args:
            state: The Trainer's state.
            batch: The view that the worker made of it.
            window: Epoch and index of the candidates' window.
        """
        if dist.get_global_rank() % (self._loader.dataset.replication or 1) == 0:
            self._likeness.count(batch)
        return state.device.tensor_to_device(torch.from_numpy(self._likeness.scores(batch)))

    def learns_from(self, batches: int) -> bool:
        """Whether it learns from a batch: never."""
        return False

    def learn(self, state: State) -> None:
        """Learn nothing."""

    def window_chosen(self, state: State, choice: Choice) -> dict[str, float]:
        """Score the next window by all that was counted, and compare this one with the target.

        All ranks must call this together.

        Returns:
            Metrics by name: ``target_resemblance``, the median score of the target's samples that
            were kept aside.
        """
        scores = np.concatenate([self._likeness.scores(view) for view in self._aside])
        self._likeness.advance()
        if choice.decision.by == SCORED and choice.scores is not None and not self._compared:
            self._compared = True
            self._compare(choice.scores, scores)
        return {"target_resemblance": float(np.median(scores))}

    def _compare(self, candidates: NDArray, target: NDArray) -> None:
        finite = candidates[np.isfinite(candidates)]
        best = float(np.quantile(finite, _BEST)) if finite.size else -np.inf
        worst = float(np.quantile(target, _WORST))
        if best < worst and dist.get_global_rank() == 0:
            log.warning(
                "Nothing in the stream is like the target so far: of the first window's candidates "
                "99 in 100 score below %.3f, and 9 in 10 of the target's own samples above %.3f. "
                "The most alike are still chosen.",
                best,
                worst,
            )

    def between_windows(self, clock: Clock) -> None:
        """Nothing is due."""

    def state_dict(self) -> dict[str, Any]:
        """The counts of the stream. All ranks must call this together."""
        return {"target": self._likeness.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: The counts are of another kind.
        """
        if state.get("target") is not None:
            self._likeness.load_state_dict(state["target"])
