"""Resemblance, against its formula in float64."""

from math import log

import numpy as np
import pytest

from attent_stream.base.gather import ALONE, RankGroup
from attent_stream.score.ngrams import ABSENT, BUCKETS
from attent_stream.score.resemblance import Resemblance

RNG = np.random.default_rng(0)


def counted(ids) -> np.ndarray:
    return np.bincount(np.ravel(ids), minlength=BUCKETS)[:BUCKETS]


def drawn(rows: int, words: int) -> np.ndarray:
    return RNG.integers(0, words, (rows, 9)).astype(np.uint16)


def by_hand(ids, target, stream) -> list[float]:
    """Each n-gram's ratio, with as many n-grams of what both have in common added to each side."""
    size, seen = target.sum(), stream.sum()

    def ratio(one: int) -> float:
        common = (target[one] / size + stream[one] / seen) / 2
        p = (target[one] + common * BUCKETS) / (size + BUCKETS)
        q = (stream[one] + common * BUCKETS) / (seen + BUCKETS)
        return log(p / q) if common else 0.0

    return [
        np.mean([ratio(one) for one in row if one != ABSENT]) if (row != ABSENT).any() else -np.inf
        for row in ids
    ]


def test_it_is_the_mean_logarithm_of_the_ratio():
    target, stream, ids = counted(drawn(40, 300)), drawn(60, 900), drawn(7, 1000)
    ids[2, 4:], ids[3] = ABSENT, ABSENT
    likeness = Resemblance([target], [1.0], ALONE)
    assert not likeness.ready and (likeness.scores(ids[:2]) == 0).all()
    likeness.count(stream[:25])
    likeness.count(stream[25:])
    assert not likeness.ready and (likeness.scores(ids[:2]) == 0).all()  # until the window is over
    likeness.advance()
    assert likeness.ready
    scores = likeness.scores(ids)
    np.testing.assert_allclose(scores, by_hand(ids, target, counted(stream)), rtol=1e-5, atol=1e-6)
    assert scores.dtype == np.float32 and scores[3] == -np.inf


def test_streams_of_a_target_are_weighted():
    first, second = counted(drawn(30, 200)), counted(drawn(50, 800))
    ids, stream = drawn(5, 900), drawn(80, 900)
    one, both = Resemblance([first], [2.0], ALONE), Resemblance([first, second], [3, 1], ALONE)
    for likeness in (one, both):
        likeness.count(stream)
        likeness.advance()
    mixed = 0.75 * first / first.sum() + 0.25 * second / second.sum()
    size = first.sum() + second.sum()
    expected = by_hand(ids, mixed * size, counted(stream))
    np.testing.assert_allclose(both.scores(ids), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(one.scores(ids), both.scores(ids))
    with pytest.raises(ValueError, match="expected text in stream 1 of the target"):
        Resemblance([first, np.zeros(BUCKETS, np.int64)], [1, 1], ALONE)


class OfTwo(RankGroup):
    """Two ranks played in one process: the other has counted what is given."""

    def total(self, values):
        return values + OTHER


OTHER = np.zeros(BUCKETS, np.int64)


def test_ranks_count_together_and_go_on_on_any_number_of_them():
    target, ids = counted(drawn(40, 300)), drawn(7, 900)
    mine, others, later = drawn(20, 900), drawn(30, 900), drawn(10, 900)
    alone, shared = (
        Resemblance([target], [1.0], group) for group in (ALONE, OfTwo(rank=0, ranks=2))
    )
    OTHER[:] = counted(others)
    for rows in (mine, others):
        alone.count(rows)
    shared.count(mine)
    alone.advance()
    shared.advance()
    assert alone.scores(ids).tolist() == shared.scores(ids).tolist()
    OTHER[:] = 0
    alone.count(later)
    shared.count(later)
    state = shared.state_dict()
    assert all((state[k] == v).all() for k, v in alone.state_dict().items())
    ranks = [Resemblance([target], [1.0], RankGroup(rank=rank, ranks=2)) for rank in range(2)]
    for one in ranks:
        one.load_state_dict(state)
        assert one.scores(ids).tolist() == shared.scores(ids).tolist()
    assert sum(one._counted().sum() for one in ranks) == counted(later).sum()
    with pytest.raises(ValueError, match=f"expected counts of {BUCKETS} n-grams"):
        alone.load_state_dict({name: value[:3] for name, value in state.items()})
