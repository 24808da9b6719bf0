"""The length of training, converted from Composer's time."""

from composer import Time, TimeUnit

from attent_stream.base.span import Span

_UNITS = {TimeUnit.EPOCH: "ep", TimeUnit.BATCH: "ba", TimeUnit.SAMPLE: "sp", TimeUnit.TOKEN: "tok"}


def total_span(max_duration: Time | None) -> Span | None:
    """Convert ``max_duration``; None if it is not set or is in seconds or iterations."""
    if max_duration is None or max_duration.unit not in _UNITS:
        return None
    return Span(value=float(max_duration.value), unit=_UNITS[max_duration.unit])
