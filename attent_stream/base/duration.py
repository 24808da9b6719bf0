"""The length of training, from Composer's time to ours."""

from composer import Time, TimeUnit

from attent_stream.base.span import Span

_UNITS = {TimeUnit.EPOCH: "ep", TimeUnit.BATCH: "ba", TimeUnit.SAMPLE: "sp", TimeUnit.TOKEN: "tok"}


def total_span(max_duration: Time | None) -> Span | None:
    """Length of training in our units, None where it is told in seconds or iterations, or not at
    all.
    """
    if max_duration is None or max_duration.unit not in _UNITS:
        return None
    return Span(value=float(max_duration.value), unit=_UNITS[max_duration.unit])
