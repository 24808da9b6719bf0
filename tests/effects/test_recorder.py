"""Training losses on their way into the ledger. Oracle: the losses of a float64 model, by hand."""

import copy

import numpy as np
import pytest
import torch
from composer import Callback
from corpora import write_tokens
from fits import LENGTH, VOCAB, TextLossOnly, fit, make_loader, make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from attent_stream import AtteNT
from attent_stream.effects.recorder import _Lessons, _means, _table


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)


def test_record_fills_the_ledger_from_the_training_forward(folder):
    """attent_simple: the first epoch's own losses, no scoring pass ever."""
    algorithm = AtteNT(
        select="hard", keep=0.5, score="loss", interval="1dur", warmup="1ep", remember="warmup"
    )
    watch, memory, trainer = fit(
        make_loader(folder, num_workers=2),
        [algorithm],
        max_duration="3ep",
        device_train_microbatch_size=3,
    )
    assert memory.data["attent/candidates"][-1][1] == 0
    assert len(watch.losses) == 25 + 2 * 13
    recalled = algorithm.fit.teacher.ledger.recall(np.arange(100))
    assert np.isfinite(recalled).all()
    assert [int(v) for _, v in memory.data["attent/dropped"]][-1] == 2 * 48


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_a_table_of_batches_has_each_score_beside_its_sample(sizes, seed):
    """Micro-batches of any sizes, also short batches and ones that were not scored."""
    rng, batches, expected = np.random.default_rng(seed), [], []
    for number, micro in enumerate(sizes):
        ids = rng.integers(0, 1000, sum(micro))
        scores = [torch.from_numpy(rng.random(size)).to(torch.float32) for size in micro]
        batches.append(_Lessons(ids, scores, sum(micro) + int(rng.integers(3)), number / 4))
        values = [score for one in scores for score in one.tolist()]
        expected.append(list(zip(ids.tolist(), values, strict=True)))
    table = _table(batches, torch.device("cpu")).numpy()
    assert table.shape == (len(sizes), 3, max(batch.width for batch in batches))
    for number, (row, pairs) in enumerate(zip(table, expected, strict=True)):
        real = row[0] >= 0
        ids = row[0][real].astype(int).tolist()
        assert list(zip(ids, row[1][real].tolist(), strict=True)) == pairs
        assert (row[2] == number / 4).all()


class LastLosses(Callback):
    """Each sample's loss, or its pieces' mean, in float64, by the weights before its last batch."""

    def __init__(self, algorithm):
        self._algorithm, self.losses = algorithm, {}

    def batch_start(self, state, logger):
        model = copy.deepcopy(state.model).double().eval()
        tokens = state.batch["input_ids"]
        with torch.no_grad():
            log_p = model.model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
        losses = -log_p.gather(-1, tokens[:, 1:, None])[..., 0].mean(1)
        ids = self._algorithm.fit.loader.epoch.lesson[0]
        for one in np.unique(ids):
            self.losses[int(one)] = losses[torch.from_numpy(ids == one)].mean().item()


@pytest.mark.parametrize("microbatch", [4, 3])
@pytest.mark.parametrize("arrange", ["none", {"pieces": 0.5}])
def test_what_is_remembered_is_the_loss_of_the_last_training_forward(folder, arrange, microbatch):
    algorithm = AtteNT(
        remember={"when": "always", "detrend": False},
        score="loss",
        select="hard",
        keep=0.5,
        interval="1dur",
        warmup="1ep",
        arrange=arrange,
    )
    last = LastLosses(algorithm)
    fit(
        make_loader(folder),
        [algorithm],
        max_duration="2ep",
        device_train_microbatch_size=microbatch,
        callbacks=[last],
    )
    algorithm.fit.flush()
    found = algorithm.fit.teacher.ledger.recall(np.arange(100))
    np.testing.assert_allclose(found, [last.losses[i] for i in range(100)], rtol=2e-3)


def test_recording_takes_no_forward_of_its_own(folder):
    model, calls = make_model(), []
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    watch, _, _ = fit(make_loader(folder), [AtteNT()], model, max_duration="2ep")
    assert calls == [True] * len(watch.losses)


def test_what_nobody_asked_for_is_said_once_and_left_away(folder, caplog):
    fit(make_loader(folder), [one := AtteNT()], TextLossOnly(), max_duration="2ep")
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("attent")]
    assert told.startswith("Training continues without remembered losses: ")
    assert "training losses of TextLossOnly's samples cannot be recorded" in told
    assert one.fit.recorder.stopped
    assert not np.isfinite(one.fit.teacher.ledger.recall(np.arange(100))).any()


def test_a_batch_that_gives_fewer_losses_than_lessons(folder, caplog):
    class Shortens(Callback):
        def before_forward(self, state, logger):
            state.batch = {name: value[:-1] for name, value in state.batch.items()}

    fit(make_loader(folder), [AtteNT()], max_duration="2ep", callbacks=[Shortens()])
    told = [record.getMessage() for record in caplog.records if record.name.startswith("attent")]
    assert len(told) == 1 and "each of the batch's 4 lessons" in told[0] and "got 3" in told[0]
    with pytest.raises(RuntimeError, match="each of the batch's 4 lessons, got 3"):
        asked = AtteNT(remember="always")
        fit(make_loader(folder), [asked], max_duration="2ep", callbacks=[Shortens()])


def test_pieces_of_a_sample_are_averaged():
    ids = np.array([5, 2, 5, 9, 2, 9])
    scores = np.array([1.0, 4.0, 3.0, -np.inf, -np.inf, -np.inf])  # -inf: without a label
    once, means = _means(ids, scores)
    assert once.tolist() == [2, 5, 9] and means.tolist() == [4.0, 2.0, -np.inf]
    whole = _means(ids[:2], scores[:2])  # each once: as they are, in order
    assert whole[0].tolist() == [5, 2] and whole[1].tolist() == [1.0, 4.0]
