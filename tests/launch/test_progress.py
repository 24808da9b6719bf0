"""Lines of progress come once a minute, with the time that is left."""

from types import SimpleNamespace

import pytest
import torch
from composer import Time, Timestamp

from attent_stream.launch.progress import Progress, duration


def state_at(batch, loss=None):
    """A run of ten batches."""
    return SimpleNamespace(
        timestamp=Timestamp(batch=batch),
        max_duration=Time.from_timestring("10ba"),
        dataloader_len=None,
        loss=loss,
    )


def lines(first, loss=None):
    """Train ten batches of 25 seconds, from one on."""
    said, now = [], [0.0]
    progress = Progress("1/2 plain", said.append, lambda: now[0])
    now[0] = 7.0  # set up
    progress.fit_start(state_at(first), None)
    for step in range(first + 1, 11):
        now[0] += 25.0
        progress.batch_end(state_at(step, loss), None)
    return said


def test_a_line_each_minute_until_the_last_step():
    assert lines(0) == [
        "1/2 plain: step 3, 30% of training, 3 min left",
        "1/2 plain: step 6, 60% of training, 2 min left",
        "1/2 plain: step 9, 90% of training, 25 s left",
    ]


def test_a_resumed_run_counts_from_where_it_went_on():
    assert lines(4, torch.tensor(2.5)) == [
        "1/2 plain: step 7, 70% of training, loss 2.5000, 75 s left"
    ]


@pytest.mark.parametrize("loss", [{"a": torch.tensor(1.0)}, torch.zeros(3), None])
def test_a_loss_that_is_not_one_number_is_left_out(loss):
    assert "loss" not in lines(4, loss)[0]


def test_durations():
    given = (0.4, 99, 101, 3600, 7200)
    assert [duration(one) for one in given] == ["0 s", "99 s", "2 min", "60 min", "2.0 h"]
