"""Candidate batches that wait to be scored, and how their scores reach the epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from attent_stream.base.errors import ScoreError
from attent_stream.base.gather import RankGroup
from attent_stream.base.watch import here
from attent_stream.data.dataset import TeachingDataset
from attent_stream.data.places import places
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.decision import SCORED, Decision

Score = Callable[[Any], torch.Tensor]
ToDevice = Callable[[torch.Tensor], torch.Tensor]

_AT_ONCE = 1 << 26  # bytes of features that are gathered


class Candidate(NamedTuple):
    """A candidate batch: its row in the next window, the collated batch, and its features.

    The batch is None where only features are needed.
    """

    row: int
    batch: Any
    features: NDArray | None


def record_candidates(
    candidates: list[Candidate],
    epoch: TaughtEpoch,
    decision: Decision,
    dataset: TeachingDataset,
    score: Score,
    to_device: ToDevice,
) -> None:
    """Score candidates, gather scores and features from all ranks, and record them.

    All ranks must call this together, with the same number of candidates.

    Args:
        candidates: This rank's candidates, at least one.
        epoch: Records scores and features.
        decision: How the candidates' window will be chosen.
        dataset: The candidates' data set.
        score: Scores a batch, floating point of shape (batch_size,).
        to_device: Moves a tensor to where torch.distributed can gather it.

    Raises:
        ScoreError: A batch cannot be scored. The message names its samples and the rank.
    """
    fresh = [candidate for candidate in candidates if candidate.row >= epoch.again]
    if decision.by == SCORED and fresh:
        scores = []
        for row, batch, _ in fresh:
            try:
                scores.append(score(batch).float())
            except ScoreError as error:
                where = places(dataset, epoch.segment.candidates[row])
                raise ScoreError(f"{error}; on {here()} for {where}") from error
        epoch.record([row for row, _, _ in fresh], dataset.gathered(torch.stack(scores)))
    if decision.features:
        group = RankGroup.of_world(to_device)
        rows = [candidate.row for candidate in candidates]
        features = torch.stack([torch.from_numpy(candidate.features) for candidate in candidates])
        pick = epoch.feature_places(group)
        some = max(1, _AT_ONCE // (features[0].nbytes * group.ranks))
        for first in range(0, len(rows), some):
            gathered = dataset.gathered(to_device(features[first : first + some]), pick)
            epoch.record_features(rows[first : first + some], gathered)
