"""An arm of the demo: its algorithm and its clock."""

from types import SimpleNamespace

from torchmetrics import MeanMetric

from attent_stream import AtteNT
from attent_stream.base import training_time
from attent_stream.demo.arm import Recorder, teacher
from attent_stream.demo.settings import FULL


def test_arms_differ_in_the_algorithm_alone():
    assert teacher("uniform", FULL) is None
    random, published = (teacher(arm, FULL).settings for arm in ("random", "published"))
    assert (random.select, published.select) == ("random", FULL.select)
    assert random.keep == published.keep is not None
    assert teacher("taught", FULL).settings == AtteNT().settings


def test_evaluations_are_not_training_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: now[0])
    metric = MeanMetric()
    metric.update(2.5)
    state = SimpleNamespace(
        eval_metrics={"eval": {"LanguageCrossEntropy": metric}},
        timestamp=SimpleNamespace(batch=1, token=2),
    )
    recorder = Recorder(None, None)

    def evaluate(seconds):
        recorder.eval_before_all(state, None)
        now[0] += seconds
        recorder.eval_end(state, None)
        now[0] += 1
        recorder.eval_after_all(state, None)

    evaluate(50)  # before training
    now[0] += 7
    recorder.fit_start(state, None)
    now[0] += 3
    evaluate(50)
    now[0] += 4
    evaluate(50)
    assert [(p.seconds, p.loss) for p in recorder.points] == [(0, 2.5), (3, 2.5), (7, 2.5)]
