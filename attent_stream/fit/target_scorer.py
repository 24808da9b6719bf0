"""Scores candidates by how they are like a target. No model is asked."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from composer import State
from composer.utils import dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import ScoreError
from attent_stream.base.span import Clock
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.base.watch import here
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.places import places
from attent_stream.fit.alike import halves, is_alike, scores_of, share_alike
from attent_stream.model.reading import Reading
from attent_stream.score.recipe import Likeness
from attent_stream.score.views import VIEWS
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.choice import Choice

# Samples of a window that are counted before candidates are scored, at most.
_FIRST = 1024
_ENOUGH = 64  # candidates that are compared with the target, at least
_BEST, _WORST = 0.99, 0.1  # quantiles of candidates and target that are compared

log = logging.getLogger(__name__)


class TargetScorer:
    """Scores the candidates of one fit by their views.

    Args:
        likeness: Scores views, and counts the stream.
        view: Name of the view in ``VIEWS``.
        loader: Has the candidates.
        aside: Views of the target's samples that were kept aside.
        to_device: Moves a tensor to where torch.distributed can gather it.
        spent: Measures the time that it takes to score a first window.
    """

    def __init__(
        self,
        likeness: Likeness,
        view: str,
        loader: TeachingDataLoader,
        aside: list[NDArray],
        *,
        to_device: Callable[[Tensor], Tensor],
        spent: Stopwatch,
    ) -> None:
        self._likeness, self._view, self._loader, self._aside = likeness, view, loader, aside
        self._to_device, self._spent = to_device, spent
        self._compared = False
        self._advanced = False  # for a first window, before its choice is known
        self._seen: list[NDArray] = []  # scores of the first candidates

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

    def alike(self, fresh: Likeness, views: list[NDArray]) -> bool:
        """Whether the stream is like the target. All ranks must call this together.

        Args:
            fresh: Has counted nothing of the stream.
            views: Of samples of the stream that this rank has read, as many on all ranks.
        """
        with self._spent:
            counted, others = halves(views)
            self._count(counted, fresh)
            fresh.advance()
            scores = self._to_device(scores_of(fresh, others))
            found = self._loader.dataset.gathered(scores)
            aside = scores_of(fresh, self._aside).numpy()
        return is_alike(share_alike(found.reshape(-1), aside))

    def begin(self, state: State, epoch: TaughtEpoch) -> None:
        """Count samples of the window that is trained on, if nothing of the stream was counted yet,
        as after a resume without its state. All ranks must call this together.
        """
        choice = epoch.segment.choice
        if self._likeness.ready or choice is None:
            return
        window, dataset = choice.window, self._loader.dataset
        rows = min(len(window.ids), -(-_FIRST // dataset.row_size))
        views = self._read(epoch.order.of_rank(window.ids[:rows], epoch.rank))
        self._count(views, self._likeness)
        self._likeness.advance()

    def first(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the first window of an epoch, which this process reads before training. All ranks
        must call this together.

        Args:
            ids: Sample ids of this rank, shape (n, batch_size).

        Returns:
            Scores of all ranks, shape (ranks, n, batch_size).
        """
        with self._spent:
            views = self._read(ids)
            self._count(views, self._likeness)
            self._likeness.advance()
            self._advanced = True
            scores = torch.from_numpy(np.stack([self._likeness.scores(one) for one in views]))
            return self._loader.dataset.gathered(self._to_device(scores))

    def _read(self, ids: NDArray[np.int64]) -> list[NDArray]:
        """Views of batches that this process reads itself.

        Raises:
            ScoreError: A batch has no view. The message names its samples and the rank.
        """
        view, found = VIEWS.get(self._view), []
        for row in ids:
            try:
                found.append(view(self._loader.collated(row)))
                if len(found[-1]) != len(row):
                    raise ScoreError(f"expected a row for each sample, got {len(found[-1])}")
            except ScoreError as error:
                where = places(self._loader.dataset, row)
                raise ScoreError(f"{error}; on {here()} for {where}") from error
        return found

    def _count(self, views: list[NDArray], likeness: Likeness) -> None:
        """Count views of the stream. Replicas read the same samples, and one of them counts."""
        if dist.get_global_rank() % (self._loader.dataset.replication or 1) == 0:
            for view in views:
                likeness.count(view)

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
        self._count([batch], self._likeness)
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
        if not self._advanced:
            self._likeness.advance()
        self._advanced = False
        if choice.scores is not None and not self._compared:
            self._seen.append(choice.scores[np.isfinite(choice.scores)])
            if sum(map(len, self._seen)) >= _ENOUGH:
                self._compare(np.concatenate(self._seen), scores)
                self._compared, self._seen = True, []
        return {"target_resemblance": float(np.median(scores))}

    def _compare(self, candidates: NDArray, target: NDArray) -> None:
        best, worst = float(np.quantile(candidates, _BEST)), float(np.quantile(target, _WORST))
        # Where the stream is like the target, both are near 0 and differ by chance.
        if best + float(np.std(candidates)) < worst and dist.get_global_rank() == 0:
            log.warning(
                "Nothing in the stream is like the target so far: 99 in 100 of the first %d "
                "candidates score below %.3f, and 9 in 10 of the target's own samples above %.3f. "
                "The most alike are still chosen.",
                len(candidates),
                best,
                worst,
            )

    def between_windows(self, clock: Clock) -> None:
        """Nothing is due."""

    def state_dict(self) -> dict[str, Any]:
        """The counts of the stream. All ranks must call this together."""
        return {"target": {"view": self._view, **self._likeness.state_dict()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: The counts are of another kind.
        """
        known = state.get("target")
        if known is not None and known.get("view") == self._view:  # else of another score
            self._likeness.load_state_dict(known)
