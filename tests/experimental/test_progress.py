"""Learning progress of streams. Oracles: numpy's weighted polynomial fit, power laws whose slope is
known, a run never stopped.
"""

import numpy as np
import pytest
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_model
from hypothesis import given
from hypothesis import strategies as st
from streaming import MDSWriter, Stream

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.experimental.progress import ProgressLedger
from attent_stream.memory.ledger import GroupLedger

STARTS = np.array([0, 10, 40])


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 49), min_size=1, max_size=12), st.integers(0, 99)),
        min_size=1,
        max_size=30,
    )
)
def test_slopes_are_those_of_a_weighted_fit(records):
    ledger = ProgressLedger(STARTS, 50)
    points, seen = [], 0
    for ids, seed in records:
        losses = np.random.default_rng(seed).normal(3, 1, len(ids))
        ledger.record(np.array(ids), losses, 0.0)
        seen += len(ids)
        points += [
            (sum(i >= start for start in STARTS) - 1, seen, loss)
            for i, loss in zip(ids, losses, strict=True)
        ]
    for stream in range(3):
        n, loss = np.array([p[1:] for p in points if p[0] == stream]).reshape(-1, 2).T
        found = ledger.slopes[stream]
        if not np.isfinite(found):
            assert len(n) == 0 or np.cov(np.log(n), aweights=(n / seen) ** 2, ddof=0) < 0.021
            continue
        assert found == pytest.approx(
            -np.polyfit(np.log(n), loss, 1, w=n / seen)[0], rel=1e-5, abs=1e-7
        )


def test_power_laws_and_the_floor():
    ledger, seen = ProgressLedger(STARTS, 50), 0
    rng = np.random.default_rng(3)
    assert (
        np.isnan(ledger.recall(np.array([0, 49]))).all()
        and not ledger.known(np.array([0, 49]), 0.0, 9.0).any()
    )
    for _ in range(600):
        ids = rng.integers(0, 50, 16)
        seen += 16
        laws = np.array([2 + 3 * seen**-0.3, 3 + 2 * seen**-0.1, 4.0])
        ledger.record(ids, laws[np.searchsorted(STARTS, ids, side="right") - 1], 0.0)
    slopes = np.array([0.9 * seen**-0.3, 0.2 * seen**-0.1, 0.0])
    # It looks back, where they were steeper
    np.testing.assert_allclose(ledger.slopes, slopes, rtol=0.3, atol=1e-4)
    scores = ledger.recall(np.array([0, 10, 40]))
    assert scores[2] == pytest.approx(0.1 * np.maximum(ledger.slopes, 0).mean(), rel=1e-4)
    ledger.record(np.array([3]), np.array([np.nan]), 0.0)
    again = ProgressLedger(STARTS, 50)
    again.load_state_dict(ledger.state_dict())
    np.testing.assert_array_equal(again.recall(np.arange(50)), ledger.recall(np.arange(50)))
    with pytest.raises(ValueError, match="a ledger per stream, got one per stream, as progress"):
        GroupLedger(STARTS, 50, "stream").load_state_dict(ledger.state_dict())


def test_where_nothing_is_learnt_all_streams_are_alike():
    ledger = ProgressLedger(STARTS, 50)
    for _ in range(50):
        ledger.record(np.arange(50), np.full(50, 2.0), 0.0)
    assert ledger.known(np.arange(50), 0.0, 1.0).all()
    np.testing.assert_array_equal(ledger.recall(np.arange(50)), 1.0)


def mixed(tmp_path) -> TeachingDataLoader:
    """Two streams alike in size: one is noise, of the other a token tells much of the next."""
    noise, rng = tmp_path / "noise", np.random.default_rng(5)
    if not noise.exists():
        with MDSWriter(out=str(noise), columns={"tokens": "ndarray:uint16"}) as writer:
            for _ in range(200):
                writer.write({"tokens": rng.integers(0, VOCAB, LENGTH).astype(np.uint16)})
        write_tokens(tmp_path / "walks", 200, length=LENGTH, vocab=VOCAB)
    streams = [Stream(local=str(tmp_path / name)) for name in ("noise", "walks")]
    dataset = TeachingDataset(
        streams=streams, batch_size=BATCH, window=8, gap=1, shuffle=True, num_canonical_nodes=1
    )
    return TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())


def test_a_run_takes_more_of_the_stream_that_is_being_learnt(tmp_path):
    algorithm = AtteNT(score="progress", keep=0.5)
    _, memory, _ = fit(mixed(tmp_path), [algorithm], max_duration="2ep")
    assert memory.data["attent/candidates"][-1][1] == 0  # none is forwarded
    keep, walks = (
        [value for _, value in memory.data[f"attent/{name}"]] for name in ("keep", "stream_1_kept")
    )
    assert keep[0] == 1.0 and set(keep[2:-1]) <= {0.5, 1.0} and keep.count(0.5) > 10
    assert np.mean(walks[2:]) > 0.6, walks


@pytest.mark.slow
def test_it_resumes_bit_for_bit(tmp_path):
    def run(loader, **kwargs):
        return fit(
            loader,
            [AtteNT(score="progress", keep=0.5)],
            make_model(0.2),
            max_duration="2ep",
            seed=3,
            **kwargs,
        )[0]

    whole = run(mixed(tmp_path))
    saving = {
        "save_folder": str(tmp_path / "saved"),
        "save_interval": "1ba",
        "save_filename": "ba{batch}.pt",
    }
    assert run(mixed(tmp_path), **saving).losses == whole.losses
    for batch in (3, len(whole.losses) - 20):
        gone_on = run(mixed(tmp_path), load_path=str(tmp_path / "saved" / f"ba{batch}.pt"))
        assert gone_on.losses == whole.losses[batch:], batch
        assert gone_on.tokens == whole.tokens[batch:]


def test_mistakes_are_named():
    with pytest.raises(
        ValueError, match="'progress' needs select to be 'proportional', got 'hard'"
    ):
        AtteNT(score="progress", select="hard")
    with pytest.raises(ValueError, match="'progress' needs remember.per to be left away, got"):
        AtteNT(score="progress", remember={"per": "shard"})
    with pytest.raises(ValueError, match="needs remember.when, got 'never'"):
        AtteNT(score="progress", remember="never")
