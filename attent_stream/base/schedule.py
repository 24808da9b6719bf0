"""Schedules over the progress of training: shares, the interval of scores, and when to teach."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from attent_stream.base.registry import nearest
from attent_stream.base.span import Clock, Span, told_as_span

# Rounding: sums of binary fractions such as 0.9 + 0.1 miss the exact value by less than this.
_EPSILON = 1e-9


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


# (progress in [0, 1], stages) -> the blend of `from` and `to`, in [0, 1]. As in INT (ICML 2024),
# `step` reaches `to` only at the very end. INT's `reverse-cosine` is the cosine curve downwards, so
# it has the same blend.
SHARE_SHAPES: dict[str, Callable[[float, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "step": _step,
    "reverse_cosine": _cosine,
}


@dataclass(frozen=True, kw_only=True)
class ShareSchedule:
    """A share over time: ``keep`` of a window's candidates, ``resolution`` or ``seq_len``.

    The shapes are from INT (Nonparametric Teaching of Implicit Neural Representations, ICML 2024).
    ``cosine`` is also the growing ratio of AtteNT (arXiv 2602.20461). ``reverse_cosine`` follows
    the same curve from the larger to the smaller value.

    Args:
        shape: One of ``SHARE_SHAPES``.
        start: The share at the start of training, in (0, 1].
        end: The share once ``over`` has passed, in (0, 1].
        over: Length of the change, from the start of training.
        stages: Number of stages of the ``step`` shape.
        setting: Name of the setting, for messages.

    Raises:
        ValueError: The shape is unknown, a share is outside (0, 1], there is less than one stage,
            ``constant`` changes, or ``reverse_cosine`` does not fall.
    """

    shape: str = "constant"
    start: float
    end: float
    over: Span = Span(value=1.0, unit="dur")
    stages: int = 10
    setting: str = "keep"

    def __post_init__(self) -> None:
        if self.shape not in SHARE_SHAPES:
            close = nearest(self.shape, SHARE_SHAPES)
            raise ValueError(f"{self.setting} has no schedule {self.shape!r}, {close}")
        for value in (self.start, self.end):
            if not _is_number(value) or not 0 < value <= 1:
                raise ValueError(
                    f"{self.setting} must be a number greater than 0 and at most 1, got {value!r}"
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
                f"a reverse_cosine {self.setting} falls, so 'from' must be above 'to', "
                f"got from {self.start!r} to {self.end!r} (use cosine to rise)"
            )

    @property
    def least(self) -> float:
        """The smallest share over all of training."""
        return min(self.start, self.end)

    @property
    def some(self) -> bool:
        """Whether the share is ever below 1."""
        return self.least < 1

    def at(self, clock: Clock) -> float:
        """Return the share at a time, in (0, 1]."""
        blend = SHARE_SHAPES[self.shape](clock.fraction(self.over), self.stages)
        value = self.start * (1.0 - blend) + self.end * blend
        return min(max(value, self.least), max(self.start, self.end))  # against rounding


def parse_share(value: object, setting: str = "keep") -> ShareSchedule:
    """Parse a share: a number, or a mapping {schedule, from, to, over, stages}.

    Args:
        value: A number in (0, 1] for a constant share, or a mapping. The mapping needs ``schedule``
            (one of ``SHARE_SHAPES``), ``from`` and, unless the schedule is constant, ``to``.
            ``over`` is a time string (default ``1dur``) and ``stages`` an integer (default 10).
        setting: Name of the setting, for messages.

    Raises:
        ValueError: The value is invalid.
    """
    if isinstance(value, ShareSchedule):
        return value
    if _is_number(value):
        return ShareSchedule(start=value, end=value, setting=setting)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{setting} must be a number greater than 0 and at most 1, or a mapping with "
            f"'schedule', 'from' and 'to', got {value!r}"
        )
    _refuse_unknown(value, ("schedule", "from", "to", "over", "stages"), setting)
    constant = value.get("schedule") == "constant"
    _require(value, ("schedule", "from") if constant else ("schedule", "from", "to"), setting)
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
    """The interval in which a score is reused: while ``now - then < at(clock)``, in ``unit``.

    Epochs count as whole epochs, so ``1ep`` scores every sample once in every epoch. An interval of
    0 (``dense``) never reuses a score.

    Args:
        unit: Unit of the interval.
        start: Its value at the start of training.
        end: Its value once ``over`` has passed, linear in between.
        over: Length of the change.
        incremental: Use INT's schedule and ignore the other values: 0 in the first quarter of
            training, then 10, 20, 30, 40 and 50 epochs in five equal shares of the rest.
    """

    unit: str = "ep"
    start: float = 0.0
    end: float = 0.0
    over: Span = Span(value=1.0, unit="dur")
    incremental: bool = False

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            Span(value=value, unit=self.unit)  # raises if either is invalid

    @property
    def outlasts_an_epoch(self) -> bool:
        """Whether a score from one epoch can be used in the next."""
        longest = max(self.start, self.end)
        return self.incremental or (longest > 1 if self.unit == "ep" else longest > 0)

    @property
    def expires(self) -> bool:
        """Whether a score can expire before training ends."""
        return self.incremental or self.unit != "dur" or min(self.start, self.end) < 1

    def at(self, clock: Clock) -> float:
        """Return the interval at a time, in ``unit``."""
        if self.incremental:
            stage = math.floor((clock.dur - 0.25) / 0.15 + _EPSILON)
            return 0.0 if clock.dur < 0.25 else 10.0 * (min(stage, 4) + 1)
        blend = clock.fraction(self.over)
        return self.start * (1.0 - blend) + self.end * blend


def parse_interval(value: object) -> Interval:
    """Parse the setting ``interval``.

    Args:
        value: ``'dense'`` (score every window), a time string such as ``'3ep'`` or ``'1000ba'``,
            ``'incremental'`` (see ``Interval``), or a mapping {schedule: linear, from, to, over}.
            ``from`` and ``to`` are times in the same unit; ``over`` is ``1dur`` by default. (AtteNT
            grows from 5 to 10 or 50 epochs.)

    Raises:
        ValueError: The value is invalid.
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
        if (shape := value["schedule"]) != "linear":
            raise ValueError(f"interval has no schedule {shape!r}, {nearest(shape, ['linear'])}")
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
        f"mapping with 'schedule', 'from' and 'to', got {value!r}"
    )


@dataclass(frozen=True, kw_only=True)
class Phases:
    """When to teach: not before ``warmup`` has passed, and not in the last ``anneal`` of training.

    Args:
        warmup: Time at the start of training without teaching.
        anneal: Time at the end without teaching, in ``dur`` or in the unit of ``max_duration``.
    """

    warmup: Span = Span(value=0.0, unit="ba")
    anneal: Span = Span(value=0.0, unit="dur")

    def check(self, total: Span | None) -> None:
        """Raise ValueError if the end of training is not known in the unit of ``anneal``."""
        if self.anneal.value == 0 or self.anneal.unit == "dur":
            return
        if total is None or total.unit != self.anneal.unit:
            length = "which is not known" if total is None else f"{total}"
            raise ValueError(
                f"anneal must be in dur or in the unit of max_duration, {length}, got {self.anneal}"
            )

    def teaching(self, clock: Clock, total: Span | None) -> bool:
        """Whether to teach a window that is trained on at this time.

        Args:
            clock: The time.
            total: Length of training (``max_duration``), or None if it is not known.

        Raises:
            ValueError: ``anneal`` is in another unit than ``total``.
        """
        self.check(total)
        if clock.elapsed(self.warmup.unit) < self.warmup.value - _EPSILON:
            return False
        if self.anneal.value == 0:
            return True
        end = total.value if total and self.anneal.unit != "dur" else 1.0
        return clock.elapsed(self.anneal.unit) + self.anneal.value < end - _EPSILON


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(value: Mapping, keys: Iterable[str], what: str) -> None:
    missing = [key for key in keys if key not in value]
    if missing:
        given = ", ".join(map(repr, value)) or "an empty mapping"
        raise ValueError(f"{what} needs {missing[0]!r}, got only {given}")
