"""Candidate batches that wait to be scored, and how their scores reach the epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from attent_stream.base.errors import ScoreError
from attent_stream.base.watch import here
from attent_stream.data.dataset import TeachingDataset
from attent_stream.data.places import places
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.decision import SCORED, Decision

Score = Callable[[Any], torch.Tensor]
ToDevice = Callable[[torch.Tensor], torch.Tensor]


class Candidate(NamedTuple):
    """A candidate batch: its row in the next window, the collated batch, and its features."""

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
    rows = [candidate.row for candidate in candidates]
    if decision.by == SCORED:
        scores = []
        for row, batch, _ in candidates:
            try:
                scores.append(score(batch).float())
            except ScoreError as error:
                where = places(dataset, epoch.segment.candidates[row])
                raise ScoreError(f"{error}; on {here()} for {where}") from error
        epoch.record(rows, dataset.gathered(torch.stack(scores)))
    if decision.features:
        features = [to_device(torch.from_numpy(candidate.features)) for candidate in candidates]
        epoch.record_features(rows, dataset.gathered(torch.stack(features)))
