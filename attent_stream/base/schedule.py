"""Schedules: how much to keep or to see, how long a score is good, and when to teach, all over the
progress of training.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from attent_stream.base.span import Clock, Span, told_as_span

# Sums of binary fractions such as 0.9 + 0.1 miss the exact border by less than this.
_EPSILON = 1e-9


def nearest(name: object, names: Iterable[str]) -> str:
    """The good names as half a sentence, led by the one closest to ``name`` if any is close."""
    known = list(names)
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"(known: {', '.join(known)})"


def _refuse_unknown(given: Iterable[object], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has no {name!r}, {nearest(name, known)}")


def _constant(progress: float, stages: int) -> float:
    return 0.0


def _linear(progress: float, stages: int) -> float:
    return progress


def _cosine(progress: float, stages: int) -> float:
    return (1.0 - math.cos(math.pi * progress)) / 2.0


def _step(progress: float, stages: int) -> float:
    return min(1.0, math.floor(progress * stages + _EPSILON) / stages)


# (progress in [0, 1], stages) -> how far from `from` to `to`, in [0, 1]. As in INT (ICML 2024),
# whose `step` reaches `to` only at the very end. Its `reverse-cosine` is the cosine curve on the
# way down, so only the direction differs here.
SHARE_SHAPES: dict[str, Callable[[float, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "step": _step,
    "reverse_cosine": _cosine,
}


@dataclass(frozen=True, kw_only=True)
class ShareSchedule:
    """A share over time: of a window's candidates (``keep``), of an image's sides (``resolution``)
    or a text's length (``seq_len``).

    The shapes are those of INT (Nonparametric Teaching of Implicit Neural Representations, ICML
    2024); ``cosine`` is also the growing ratio of AtteNT (arXiv 2602.20461). ``reverse_cosine`` is
    INT's: it falls, from the larger to the smaller value, along the same curve.

    Args:
        shape: One of ``SHARE_SHAPES``.
        start: At the start of training, in (0, 1].
        end: Once ``over`` has passed, in (0, 1].
        over: How long the change takes, from the start of training.
        stages: Stages of the ``step`` shape.
        setting: Whose, for messages.

    Raises:
        ValueError: An unknown shape, a share outside of (0, 1], fewer than one stage, ends that
            differ for ``constant`` or do not fall for ``reverse_cosine``.
    """

    shape: str = "constant"
    start: float
    end: float
    over: Span = Span(value=1.0, unit="dur")
    stages: int = 10
    setting: str = "keep"

    def __post_init__(self) -> None:
        if self.shape not in SHARE_SHAPES:
            raise ValueError(
                f"{self.setting} has no schedule {self.shape!r}, "
                f"{nearest(self.shape, SHARE_SHAPES)}"
            )
        for value in (self.start, self.end):
            if not _is_number(value) or not 0 < value <= 1:
                raise ValueError(
                    f"{self.setting} must be a number greater than 0 and at most 1, got {value!r}: "
                    "it is a share"
                )
        if isinstance(self.stages, bool) or not isinstance(self.stages, int) or self.stages < 1:
            raise ValueError(
                f"stages of {self.setting} must be an integer of at least 1, got {self.stages!r}"
            )
        if self.shape == "constant" and self.start != self.end:
            raise ValueError(
                f"a constant {self.setting} cannot go from {self.start!r} to {self.end!r}"
            )
        if self.shape == "reverse_cosine" and self.start <= self.end:
            raise ValueError(
                f"a reverse_cosine {self.setting} falls, so 'from' must be above 'to',"
                f" got from {self.start!r} to {self.end!r} (cosine rises)"
            )

    @property
    def least(self) -> float:
        """The smallest share at any time."""
        return min(self.start, self.end)

    @property
    def some(self) -> bool:
        """Whether it is ever less than all."""
        return self.least < 1

    def at(self, clock: Clock) -> float:
        """The share at a time, in (0, 1]."""
        blend = SHARE_SHAPES[self.shape](clock.fraction(self.over), self.stages)
        value = self.start * (1.0 - blend) + self.end * blend
        return min(max(value, self.least), max(self.start, self.end))  # rounding stays inside


def parse_share(value: object, setting: str = "keep") -> ShareSchedule:
    """Read a setting that is a share: a number, or a mapping {schedule, from, to, over, stages}.

    Args:
        value: A number in (0, 1] for a constant one; or a mapping in which ``schedule`` (one of
            ``SHARE_SHAPES``) and ``from`` are required, ``to`` too unless the schedule is constant,
            and ``over`` is a time string, by default ``1dur``, and ``stages`` an integer, by
            default 10.
        setting: Its name, for messages.

    Raises:
        ValueError: Anything else, naming what was received.
    """
    if isinstance(value, ShareSchedule):
        return value
    if _is_number(value):
        return ShareSchedule(start=value, end=value, setting=setting)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{setting} must be a number greater than 0 and at most 1 or a mapping with "
            "'schedule', 'from' and"
            f" 'to', got {value!r}"
        )
    _refuse_unknown(value, ("schedule", "from", "to", "over", "stages"), setting)
    needed = (
        ("schedule", "from") if value.get("schedule") == "constant" else ("schedule", "from", "to")
    )
    _require(value, needed, setting)
    return ShareSchedule(
        shape=value["schedule"],
        start=value["from"],
        end=value.get("to", value["from"]),
        over=Span.parse(value.get("over", "1dur")),
        stages=value.get("stages", 10),
        setting=setting,
    )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How long a score is reused: while ``now - then < at(clock)``, both in ``unit`` and whole
    epochs for ``ep``.

    So ``1ep`` scores every sample afresh in every epoch, and 0 (``dense``) never reuses a score.

    Args:
        unit: Unit of the interval.
        start: Its value at the start of training.
        end: Its value once ``over`` has passed, linear in between.
        over: How long the growth takes.
        incremental: INT's schedule instead (then the other values are not read): 0 in the first
            quarter of training, then 10, 20, 30, 40 and 50 epochs in five equal parts of the rest.
    """

    unit: str = "ep"
    start: float = 0.0
    end: float = 0.0
    over: Span = Span(value=1.0, unit="dur")
    incremental: bool = False

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            Span(value=value, unit=self.unit)  # checks both

    @property
    def outlasts_an_epoch(self) -> bool:
        """Whether a score given in one epoch could be used in the next."""
        longest = max(self.start, self.end)
        return self.incremental or (longest > 1 if self.unit == "ep" else longest > 0)

    @property
    def expires(self) -> bool:
        """Whether a score can grow too old before training ends."""
        return self.incremental or self.unit != "dur" or min(self.start, self.end) < 1

    def at(self, clock: Clock) -> float:
        """The interval at a time, in ``unit``."""
        if self.incremental:
            part = math.floor((clock.dur - 0.25) / 0.15 + _EPSILON)
            return 0.0 if clock.dur < 0.25 else 10.0 * (min(part, 4) + 1)
        blend = clock.fraction(self.over)
        return self.start * (1.0 - blend) + self.end * blend


def parse_interval(value: object) -> Interval:
    """Read the setting ``interval``.

    Args:
        value: ``'dense'`` (every window is scored afresh); a time string such as ``'3ep'`` or
            ``'1000ba'``; ``'incremental'`` (INT's, see ``Interval``); or a mapping {schedule:
            linear, from, to, over} with two times in the same unit, over ``1dur`` by default
            (AtteNT grows from 5 to 10 or 50 epochs).

    Raises:
        ValueError: Anything else, naming what was received.
    """
    if isinstance(value, Interval):
        return value
    if value == "dense":
        return Interval()
    if value == "incremental":
        return Interval(incremental=True)
    if isinstance(value, Mapping):
        _refuse_unknown(value, ("schedule", "from", "to", "over"), "interval")
        _require(value, ("schedule", "from", "to"), "interval")
        if value["schedule"] != "linear":
            raise ValueError(
                f"interval has no schedule {value['schedule']!r}, "
                f"{nearest(value['schedule'], ['linear'])}"
            )
        start, end = Span.parse(value["from"]), Span.parse(value["to"])
        if start.unit != end.unit:
            raise ValueError(
                f"'from' and 'to' of interval must have the same unit, got {start} and {end}"
            )
        over = Span.parse(value.get("over", "1dur"))
        return Interval(unit=start.unit, start=start.value, end=end.value, over=over)
    if told_as_span(value):
        span = Span.parse(value)
        return Interval(unit=span.unit, start=span.value, end=span.value)
    raise ValueError(
        "interval must be 'dense', 'incremental', a time string such as '1ep' or '1000ba', or a "
        "mapping with"
        f" 'schedule', 'from' and 'to', got {value!r}"
    )


@dataclass(frozen=True, kw_only=True)
class Phases:
    """When to teach: not before ``warmup`` has passed, and not in the last ``anneal`` of training.

    Args:
        warmup: Time at the start of training in which everything is trained on.
        anneal: The same at its end, in ``dur`` or in the unit of ``max_duration``.
    """

    warmup: Span = Span(value=0.0, unit="ba")
    anneal: Span = Span(value=0.0, unit="dur")

    def check(self, total: Span | None) -> None:
        """Raise ValueError if the end of training cannot be seen coming in the unit of
        ``anneal``.
        """
        if (
            self.anneal.value > 0
            and self.anneal.unit != "dur"
            and (total is None or total.unit != self.anneal.unit)
        ):
            length = (
                "max_duration, which is not known" if total is None else f"max_duration, {total}"
            )
            raise ValueError(f"anneal must be in dur or in the unit of {length}, got {self.anneal}")

    def teaching(self, clock: Clock, total: Span | None) -> bool:
        """Whether a window trained on at this time is taught.

        Args:
            clock: The time.
            total: Length of training (``max_duration``), or None where it is not known.

        Raises:
            ValueError: ``anneal`` is in another unit than ``total``.
        """
        self.check(total)
        if clock.elapsed(self.warmup.unit) < self.warmup.value - _EPSILON:
            return False
        if self.anneal.value == 0:
            return True
        end = 1.0 if self.anneal.unit == "dur" else total.value
        return clock.elapsed(self.anneal.unit) + self.anneal.value < end - _EPSILON


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(value: Mapping, keys: Iterable[str], what: str) -> None:
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(
            f"{what} needs {missing[0]!r}, got only "
            f"{', '.join(map(repr, value)) or 'an empty mapping'}"
        )
