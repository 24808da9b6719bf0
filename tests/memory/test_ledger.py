"""The ledger. Oracles: a dict, a loop over groups, one process for several."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.memory.ledger import GroupLedger, SampleLedger, sample_bytes

SAMPLES = 23
RECORDS = st.lists(
    st.tuples(
        st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=8, unique=True),
        st.one_of(st.floats(-5, 5, width=32), st.just(float("nan")), st.just(float("inf"))),
        st.floats(0, 1e4),
    ),
    max_size=8,
)


@given(RECORDS, st.booleans(), st.floats(0.1, 1e4))
def test_sample_ledger_is_a_dict(records, ages, age):
    ledger, known = SampleLedger(SAMPLES, ages=ages), {}
    for ids, first, now in sorted(records, key=lambda record: record[2]):
        scores = np.float32(first) + np.arange(len(ids), dtype=np.float32) / 7
        ledger.record(np.array(ids), scores, now)
        for sample, score in zip(ids, scores.tolist(), strict=True):
            if not np.isfinite(score):
                known.pop(sample, None)
                continue
            known[sample] = (score, now)
    again = SampleLedger(SAMPLES, ages=ages)
    again.load_state_dict(ledger.state_dict())
    for sample in range(SAMPLES):
        recalled = again.recall(np.array([[sample]]))
        assert recalled.shape == (1, 1) and recalled.dtype == np.float32
        if sample not in known:
            assert np.isnan(recalled[0, 0]) and not again.known(np.array([sample]), 1e4, 1e9)[0]
            continue
        score, then = known[sample]
        assert recalled[0, 0] == pytest.approx(score, rel=5e-4, abs=1e-7)
        found = again.known(np.array([sample]), 1e4, age)[0]
        if not ages:
            assert found
        elif 1e4 - then >= age:
            assert not found  # never taken for younger
        elif 1e4 - then * (1 - 2**-7) < age:
            assert found


def test_whole_epochs_are_kept_exactly():
    ledger = SampleLedger(300)
    for epoch in range(256):
        ledger.record(np.array([epoch]), np.array([1.0]), float(epoch))
    assert ledger.known(np.arange(256), 255.0, 10.0).tolist() == [
        epoch > 245 for epoch in range(256)
    ]


@given(RECORDS)
def test_a_detrended_ledger_is_the_loop_over_its_model(records):
    ledger = SampleLedger(SAMPLES, detrend=True)
    differences, trend, seen = {}, 0.0, 0
    for ids, first, now in records:
        scores = first + np.arange(len(ids)) / 7
        ledger.record(np.array(ids), scores, now)
        if not np.isfinite(first):
            for sample in ids:
                differences.pop(sample, None)
            continue
        new = [
            score for sample, score in zip(ids, scores, strict=True) if sample not in differences
        ]
        if new:
            trend += (np.mean(new) - trend) * len(new) / (len(new) + seen)
            seen = min(seen + len(new), 144)
        for sample, score in zip(ids, scores, strict=True):
            differences[sample] = score - trend
    expected = [differences.get(sample, np.nan) + trend for sample in range(SAMPLES)]
    np.testing.assert_allclose(ledger.recall(np.arange(SAMPLES)), expected, rtol=2e-3, atol=5e-2)
    again = SampleLedger(SAMPLES, detrend=True)
    again.load_state_dict(ledger.state_dict())
    np.testing.assert_array_equal(
        again.recall(np.arange(SAMPLES)), ledger.recall(np.arange(SAMPLES))
    )
    again.record(np.arange(3), np.array([1.0, 2.0, 3.0]), 1e5)
    ledger.record(np.arange(3), np.array([1.0, 2.0, 3.0]), 1e5)
    np.testing.assert_array_equal(
        again.recall(np.arange(SAMPLES)), ledger.recall(np.arange(SAMPLES))
    )


def test_what_was_seen_early_is_not_taken_for_hard():
    """Losses fall by seven times what samples differ."""
    rng, count, batch = np.random.default_rng(5), 2000, 16
    hardness = rng.normal(0.0, 0.4, count)
    raw, detrended = SampleLedger(count), SampleLedger(count, detrend=True)
    for step, ids in enumerate(rng.permutation(count).reshape(-1, batch)):
        scores = 3.0 + 3.0 * np.exp(-step / 40) + hardness[ids]
        for ledger in (raw, detrended):
            ledger.record(ids, scores, float(step))
    ranks = [
        np.corrcoef(ledger.recall(np.arange(count)), hardness)[0, 1] for ledger in (raw, detrended)
    ]
    assert ranks[0] < 0.75 and ranks[1] > 0.95
    before = detrended.recall(np.arange(count))
    # What they would be by now
    assert before.mean() == pytest.approx(scores.mean() - hardness[ids].mean(), abs=0.2)
    seen = np.arange(0, count, 2)
    # Well remembered by the model, which says nothing of the others
    detrended.record(seen, np.full(len(seen), 1.0), 1e3)
    np.testing.assert_allclose(
        detrended.recall(np.arange(count)), np.where(np.arange(count) % 2, before, 1.0), atol=2e-3
    )


def test_how_much_of_the_samples_is_memorized():
    """Losses fall from new samples to new samples, and by a fifth more where one comes
    again.
    """
    rng, count = np.random.default_rng(6), 400
    hardness, ledger = rng.normal(1.0, 0.1, count), SampleLedger(count, detrend=True)
    for step, ids in enumerate(np.arange(count).reshape(-1, 8)):
        ledger.record(ids, (2.0 + 0.3 * np.exp(-step / 8)) * hardness[ids], float(step))
    assert ledger.memorized == 0  # nothing has come again
    again = rng.permutation(count).reshape(-1, 8)
    for ids in again[:3]:
        ledger.record(ids, 2.0 * 0.8 * hardness[ids], 1e3)
        assert ledger.memorized == 0  # 24 samples do not tell
    ledger.record(again[3], 2.0 * 0.8 * hardness[again[3]], 1e3)
    assert ledger.memorized == pytest.approx(0.2, abs=0.03)
    for ids in again[4:40]:  # the last 144 or so count
        ledger.record(ids, 2.0 * 0.5 * hardness[ids], 2e3)
    share = ledger.memorized
    assert share == pytest.approx(0.5, abs=0.05)
    loaded = SampleLedger(count, detrend=True)
    loaded.load_state_dict(ledger.state_dict())
    assert loaded.memorized == share
    assert SampleLedger(count).memorized == 0  # without a trend


def test_pieces_of_a_sample_do_not_come_again_in_the_first_epoch():
    """The second piece has a lower loss only because the model has got better meanwhile."""
    count, ledger = 400, SampleLedger(400, detrend=True)
    for step, ids in enumerate(np.arange(count).repeat(2).reshape(-1, 16)):
        for half in ids.reshape(8, 2).T:
            ledger.record(half, np.full(8, 4.0 + 4.0 * np.exp(-step / 8)), 0.0)
        assert step > 44 or ledger.memorized == 0
    assert ledger.memorized < 0.1  # the trend is a little behind


def test_a_checkpoint_of_before_that_was_known():
    ledger, loaded = SampleLedger(5, detrend=True), SampleLedger(5, detrend=True)
    ledger.record(np.arange(5), np.arange(5.0), 1.0)
    state = ledger.state_dict()
    loaded.record(np.arange(5), np.ones(5), 1.0)
    loaded.load_state_dict(state | {"trend": state["trend"][:2]})
    np.testing.assert_array_equal(loaded.recall(np.arange(5)), ledger.recall(np.arange(5)))


def test_large_scores_stay_finite_and_small_ones_apart_from_unknown():
    ledger = SampleLedger(4, ages=False)
    ledger.record(np.arange(3), np.array([1e30, 0.0, -1e30]), 0.0)
    np.testing.assert_array_equal(ledger.recall(np.arange(4)), [65504.0, 0.0, -65504.0, np.nan])
    assert (
        sample_bytes(10, ages=False) == 20 + 40 and ledger.state_dict()["codes"].element_size() == 2
    )


@given(RECORDS)
def test_group_ledger_is_the_loop_over_groups(records):
    starts = np.array([0, 4, 5, 15])
    sizes = np.diff(starts, append=SAMPLES)
    ledger = GroupLedger(starts, SAMPLES, "shard")
    means, counts = np.zeros(4), np.zeros(4, int)
    for ids, first, now in records:
        scores = np.full(len(ids), first)
        ledger.record(np.array(ids), scores, now)
        for group in range(4):
            mine = [
                s
                for i, s in zip(ids, scores, strict=True)
                if np.searchsorted(starts, i, "right") - 1 == group and np.isfinite(s)
            ]
            if mine:
                old = min(counts[group], max(sizes[group] - len(mine), 0))
                means[group] = (means[group] * old + sum(mine)) / (old + len(mine))
                counts[group] = old + len(mine)
    again = GroupLedger(starts, SAMPLES, "shard")
    again.load_state_dict(ledger.state_dict())
    expected = np.where(counts > 0, means, np.nan).repeat(sizes)
    np.testing.assert_allclose(again.recall(np.arange(SAMPLES)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(again.known(np.arange(SAMPLES), 1e5, 1e9), np.isfinite(expected))


def test_states_of_another_kind_are_refused_by_name():
    with pytest.raises(ValueError, match="a ledger per sample, got one per shard"):
        SampleLedger(5).load_state_dict(GroupLedger(np.array([0, 3]), 5, "shard").state_dict())
    with pytest.raises(ValueError, match="of 6 samples, got 5"):
        SampleLedger(6).load_state_dict(SampleLedger(5).state_dict())
    with pytest.raises(ValueError, match="of 3 streams, got 2"):
        GroupLedger(np.array([0, 3, 4]), 5, "stream").load_state_dict(
            GroupLedger(np.array([0, 3]), 5, "stream").state_dict()
        )
    with pytest.raises(ValueError, match="with the time of each score, got one without times"):
        SampleLedger(5).load_state_dict(SampleLedger(5, ages=False).state_dict())
    with pytest.raises(ValueError, match="remember.detrend: true, got false"):
        SampleLedger(5, detrend=True).load_state_dict(SampleLedger(5).state_dict())
    with pytest.raises(ValueError, match="remember.detrend: false, got true"):
        SampleLedger(5).load_state_dict(SampleLedger(5, detrend=True).state_dict())


def test_state_shares_memory():
    ledger = SampleLedger(100)
    state = ledger.state_dict()
    ledger.record(np.array([3]), np.array([2.0]), 1.0)
    again = SampleLedger(100)
    again.load_state_dict(state)
    assert again.recall(np.array([3]))[0] == 2.0 and state["codes"].dtype == torch.int16
