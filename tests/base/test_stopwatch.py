"""Time in blocks. Oracle: events that say when the GPU has done them."""

import pytest
import torch

from attent_stream.base.stopwatch import Stopwatch


class Event:
    """A CUDA event on a GPU that reaches each a second after the last, and has done what was
    recorded until ``done``.
    """

    now, done = 0.0, 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1.0
        self.at = Event.now

    def query(self) -> bool:
        return self.at <= Event.done

    def synchronize(self) -> None:
        Event.done = max(Event.done, self.at)

    def elapsed_time(self, end: "Event") -> float:
        assert end.query()
        return 1000 * (end.at - self.at)


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "now", 0.0)
    monkeypatch.setattr(Event, "done", 0.0)
    return Stopwatch(gpu=True)


def test_it_waits_for_the_gpu(watch):
    for _ in range(3):
        with watch:
            pass
    assert watch.take() == 3.0 and watch.take() == 0.0


def test_it_leaves_what_is_not_done(watch):
    for _ in range(3):
        with watch:
            pass
    Event.done = 4.0  # two blocks are
    assert watch.take(wait=False) == 2.0 and watch.take(wait=False) == 0.0
    Event.done = 6.0
    assert watch.take(wait=False) == 1.0
