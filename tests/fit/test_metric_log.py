"""The log of metrics has each batch's, also after a resume, and grows slowly."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from composer.metrics.nlp import LanguageCrossEntropy
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT
from attent_stream.corpus.batches import TokenCollator
from attent_stream.fit.choice_log import ChoiceLog
from attent_stream.fit.log_folder import LogFolder
from attent_stream.fit.metric_log import MetricLog
from attent_stream.launch.hf_model import wrapped
from attent_stream.report.metrics import Measured, read_measured, smoothed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("data"), 160, length=LENGTH, vocab=VOCAB)


def state(batch=0, token=0, sample=0, seconds=0.0):
    time = SimpleNamespace(
        batch=batch, token=token, sample=sample, total_wct=timedelta(seconds=seconds)
    )
    return SimpleNamespace(timestamp=time)


def test_it_has_each_batchs_loss(folder, tmp_path):
    watch, _, _ = fit(make_loader(folder), [AtteNT(), ChoiceLog(str(tmp_path))], max_duration="1ep")
    measured = read_measured(tmp_path)
    curve = measured.curves["loss/train/total"]
    assert curve.values.tolist() == pytest.approx(watch.losses)
    assert np.diff(curve.at["batch"]).tolist() == [1] * (len(watch.losses) - 1)
    assert np.all(np.diff(curve.at["samples"]) > 0) and np.all(np.diff(curve.at["seconds"]) > 0)
    assert measured.run["attent"] == {"warmup": "0ba", "seed": 17}
    assert "nothing is dropped" in measured.run["does"] and measured.run["torch"]


def test_a_resumed_run_has_each_loss_once(folder, tmp_path):
    given = {"save_folder": str(tmp_path / "save"), "save_interval": "6ba", "save_overwrite": True}
    logged = [AtteNT(), ChoiceLog(str(tmp_path / "log"))]
    whole, _, _ = fit(make_loader(folder), logged, max_duration="1ep", **given)
    path = str(tmp_path / "save" / "ep0-ba12-rank0.pt")
    logged = [AtteNT(), ChoiceLog(str(tmp_path / "log"))]
    fit(make_loader(folder), logged, max_duration="1ep", load_path=path)
    curve = read_measured(tmp_path / "log").curves["loss/train/total"]
    assert curve.values.tolist() == pytest.approx(whole.losses)


def test_a_later_file_of_the_same_batch_is_taken(tmp_path):
    for value in (1.0, 2.0):
        log = MetricLog(LogFolder(str(tmp_path)), state())
        log.log_metrics({"loss/train/total": 0.5}, 3)
        log.flush()
        log.log_metrics({"attent/keep": value}, 3)
        log.flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    first = f"metrics-{0:014}-batch000000003"
    assert names == [f"{first}-00.parquet", f"{first}-01.parquet"]
    assert read_measured(tmp_path).curves["attent/keep"].values.tolist() == [2.0]


def test_a_later_attempt_is_taken_from_its_first_batch_on(tmp_path):
    """Also where files of the earlier one begin later, and beyond the later one's end."""
    for attempt, first, end, value in ((1, 0, 100, 1.0), (1, 100, 140, 1.0), (2, 90, 120, 2.0)):
        log = MetricLog(LogFolder(str(tmp_path)), state(), attempt)
        for batch in range(first, end):
            log.log_metrics({"loss/train/total": value}, batch)
        log.flush()
    curve = read_measured(tmp_path).curves["loss/train/total"]
    assert curve.at["batch"].tolist() == [*range(120)]
    assert curve.values.tolist() == [1.0] * 90 + [2.0] * 30


def test_the_evaluation_after_the_last_batch_is_there(folder, tmp_path):
    """Composer evaluates once more after FIT_END."""
    sizes = {"n_positions": LENGTH, "n_embd": 8, "n_layer": 1, "n_head": 2}
    network = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **sizes))
    metrics = [LanguageCrossEntropy()]
    model = wrapped(network, shift_labels=True, use_logits=True, eval_metrics=metrics)
    samples = [{"tokens": np.arange(LENGTH) % VOCAB}] * 4
    given = {
        "eval_dataloader": DataLoader(samples, batch_size=2, collate_fn=TokenCollator()),
        "eval_interval": "5ba",
        "max_duration": "12ba",
    }
    fit(make_loader(folder), [AtteNT(), ChoiceLog(str(tmp_path))], model, **given)
    found = read_measured(tmp_path).curves
    (name,) = [name for name in found if name.startswith("metrics/eval")]
    assert found[name].at["batch"].tolist() == [5, 10, 12]


def test_it_logs_ever_fewer_of_a_long_runs_batches(tmp_path):
    log = MetricLog(LogFolder(str(tmp_path)), state())
    for batch in range(1 << 14):
        log.log_metrics({"loss/train/total": float(batch)}, batch)
    log.flush()
    batches = read_measured(tmp_path).curves["loss/train/total"].at["batch"]
    every = [*range(0, 2048), *range(2048, 4096, 2), *range(4096, 8192, 4), *range(8192, 16384, 8)]
    assert batches.tolist() == every


def test_what_is_no_number_or_not_of_training_is_left_out(tmp_path):
    log = MetricLog(LogFolder(str(tmp_path)), state(batch=4, token=64, sample=8, seconds=2.5))
    log.log_metrics({"loss/train/total": torch.tensor(1.5), "attent/by": "x", "time/total": 3.0})
    log.flush()
    (path,) = tmp_path.glob("*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    assert row == {
        "batch": 4,
        "tokens": 64,
        "samples": 8,
        "seconds": 2.5,
        "name": "loss/train/total",
        "value": 1.5,
    }


def test_a_log_without_metrics_is_empty(tmp_path):
    assert read_measured(tmp_path) == Measured()


def test_smoothing_is_a_moving_mean():
    values = np.random.default_rng(1).normal(size=100)
    found = smoothed(values, 0.05)
    for at in range(100):
        part = values[max(0, at - 2) : at + 3]
        assert found[at] == pytest.approx(part.mean())
    np.testing.assert_allclose(smoothed(values[:10]), values[:10])
    values[[3, 50]] = np.nan, np.inf
    assert np.isfinite(smoothed(values, 0.05)).all()
