"""Scores and features of candidates on their way to the epoch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loaders import ids_data
from taught import make_loader

from attent_stream.base.errors import ScoreError
from attent_stream.data import candidates as candidates_module
from attent_stream.data.candidates import Candidate, record_candidates
from attent_stream.window.decision import RANDOM, SCORED, Decision


class Recorded:
    """An epoch that keeps what it is told."""

    segment = SimpleNamespace(candidates=np.arange(8).reshape(2, 4))

    def __init__(self, again=0):
        self.told, self.again = {}, again

    def record(self, rows, scores):
        self.told["scores"] = rows, scores

    def feature_places(self, group):
        assert (group.rank, group.ranks) == (0, 1)
        return np.zeros(3, np.int64), np.array([2, 0, 3])

    def record_features(self, rows, features):
        self.told.setdefault("features", []).append((rows, features))


@pytest.fixture
def dataset(tmp_path):
    data = ids_data(tmp_path, 16)
    return make_loader(data, {}, {}).dataset


def some(rng) -> list[Candidate]:
    return [
        Candidate(
            row, torch.from_numpy(rng.normal(size=4)), rng.integers(0, 9, (4, 3)).astype("f2")
        )
        for row in (1, 0)
    ]


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("by", [SCORED, RANDOM])
def test_what_the_decision_needs_is_recorded(dataset, by, features):
    candidates, epoch = some(np.random.default_rng(0)), Recorded()
    decision = Decision(by=by, lessons=1, features=features)
    record_candidates(candidates, epoch, decision, dataset, torch.square, lambda tensor: tensor)
    wanted = ["scores"] * (by == SCORED) + ["features"] * features
    assert list(epoch.told) == wanted
    if by == SCORED:
        rows, scores = epoch.told["scores"]
        assert rows == [1, 0] and scores.shape == (1, 2, 4)
        wanted = np.stack([candidate.batch.numpy() ** 2 for candidate in candidates])
        np.testing.assert_allclose(scores[0], wanted, rtol=1e-6)
    if features:
        ((rows, found),) = epoch.told["features"]
        assert rows == [1, 0]
        wanted = np.stack([candidate.features[[2, 0, 3]] for candidate in candidates])
        np.testing.assert_array_equal(found, wanted)


def test_rows_that_are_read_again_are_not_scored_again(dataset):
    candidates, epoch = some(np.random.default_rng(0)), Recorded(again=1)
    candidates[1] = candidates[1]._replace(batch=None)
    decision = Decision(by=SCORED, lessons=1, features=True)
    record_candidates(candidates, epoch, decision, dataset, torch.square, lambda tensor: tensor)
    assert epoch.told["scores"][0] == [1] and epoch.told["features"][0][0] == [1, 0]


def test_many_features_are_gathered_some_at_a_time(dataset, monkeypatch):
    monkeypatch.setattr(candidates_module, "_AT_ONCE", 1)
    candidates, epoch = some(np.random.default_rng(0)), Recorded()
    decision = Decision(by=RANDOM, lessons=1, features=True)
    record_candidates(candidates, epoch, decision, dataset, torch.square, lambda tensor: tensor)
    assert [rows for rows, _ in epoch.told["features"]] == [[1], [0]]
    for (_, found), candidate in zip(epoch.told["features"], candidates, strict=True):
        np.testing.assert_array_equal(found[0], candidate.features[[2, 0, 3]])


def test_an_error_names_the_samples(dataset):
    def fails(batch):
        raise ScoreError("no score")

    decision = Decision(by=SCORED, lessons=1)
    with pytest.raises(ScoreError, match="no score; on rank 0 .* for samples 4, 5, 6, 7 .stream 0"):
        candidates = some(np.random.default_rng(0))
        record_candidates(candidates, Recorded(), decision, dataset, fails, lambda tensor: tensor)
