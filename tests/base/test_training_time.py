"""A clock that pauses for evaluations. Oracle: a time that the test sets."""

import pytest

from attent_stream.base import training_time
from attent_stream.base.training_time import TrainingTime


def test_evaluations_do_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(training_time.time, "process_time", lambda: now[0] / 2)
    clock, passed = TrainingTime(), []
    events = [
        (clock.eval_before_all, 7.0),  # before training
        (clock.fit_start, 1.0),
        (clock.eval_before_all, 2.0),
        (clock.eval_after_all, 4.0),
        (clock.fit_end, 8.0),
        (clock.fit_end, 16.0),  # again: nothing since
    ]
    for event, seconds in events:
        now[0] += seconds
        event(None, None)
        passed.append(clock.seconds)
    assert passed == [0.0, 0.0, 2.0, 2.0, 10.0, 10.0]
    assert clock.cpu_seconds == pytest.approx(5.0)
