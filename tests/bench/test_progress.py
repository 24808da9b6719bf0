"""Lines of progress come once a minute, with the time that is left."""

from types import SimpleNamespace

from attent_stream.bench.progress import Progress, duration


def test_a_line_each_minute_until_the_last_step():
    said, now = [], [0.0]
    progress = Progress("  1/2 plain", 10, said.append, lambda: now[0])
    now[0] = 7.0  # set up
    state = SimpleNamespace(timestamp=SimpleNamespace(batch=0))
    progress.fit_start(state, None)
    for step in range(1, 11):
        now[0] += 25.0
        state.timestamp.batch = step
        progress.batch_end(state, None)
    assert said == [
        "  1/2 plain: step 3 of 10, 3 min left",
        "  1/2 plain: step 6 of 10, 2 min left",
        "  1/2 plain: step 9 of 10, 25 s left",
    ]


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 99, 101, 3600)] == [
        "0 s",
        "99 s",
        "2 min",
        "60 min",
    ]
