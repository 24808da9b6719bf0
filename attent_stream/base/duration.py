"""The length of training, converted from Composer's time."""

from composer import State, Time, TimeUnit

from attent_stream.base.span import Clock, Span

_UNITS = {TimeUnit.EPOCH: "ep", TimeUnit.BATCH: "ba", TimeUnit.SAMPLE: "sp", TimeUnit.TOKEN: "tok"}


def total_span(max_duration: Time | None) -> Span | None:
    """Convert ``max_duration``; None if it is not set or is in seconds or iterations."""
    if max_duration is None or max_duration.unit not in _UNITS:
        return None
    return Span(value=float(max_duration.value), unit=_UNITS[max_duration.unit])


def clock_of(state: State) -> Clock:
    """The time of a Trainer's state."""
    now, batches = state.timestamp, state.dataloader_len
    share = 0.0 if batches is None else min(1.0, int(now.batch_in_epoch) / int(batches))
    elapsed = {
        "ep": int(now.epoch) + share,
        "ba": float(int(now.batch)),
        "sp": float(int(now.sample)),
        "tok": float(int(now.token)),
    }
    return Clock(**elapsed, dur=share_of_training(state, elapsed))


def share_of_training(state: State, elapsed: dict[str, float]) -> float:
    """How much of training has passed, in [0, 1].

    Args:
        state: A Trainer's.
        elapsed: The time in each unit.
    """
    total = total_span(state.max_duration)
    if total is not None:
        return min(1.0, elapsed[total.unit] / total.value)
    done = state.get_elapsed_duration()
    return min(1.0, float(done.value)) if done is not None else 0.0
