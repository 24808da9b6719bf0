"""Lengths of training and its progress, in Composer's units of time."""

import math
import re
from dataclasses import dataclass
from typing import TypeGuard

UNITS = {
    "ep": "epochs",
    "ba": "batches",
    "sp": "samples",
    "tok": "tokens",
    "dur": "share of training",
}
_SPAN = re.compile(r"\s*([0-9][0-9_.]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*([a-z]+)\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A length of training.

    Args:
        value: A finite number, not negative; at most 1 for ``dur``.
        unit: ``ep``, ``ba``, ``sp``, ``tok`` or ``dur`` (share of the whole training), as in
            Composer's time strings.

    Raises:
        ValueError: The value or unit is invalid.
    """

    value: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(
                f"the unit of a time must be one of {', '.join(UNITS)}, got {self.unit!r}"
            )
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"a time must be finite and not negative, got {self.value}{self.unit}")
        if self.unit == "dur" and self.value > 1:
            raise ValueError(
                f"a time in dur is a share of training and at most 1, got {self.value}dur"
            )

    @classmethod
    def parse(cls, text: "str | Span") -> "Span":
        """Parse a time string such as ``0.1dur``, ``100ba`` or ``1e6tok``, or return a Span as is.

        Raises:
            ValueError: It is neither.
        """
        if isinstance(text, Span):
            return text
        match = _SPAN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"a time must be a string such as '1ep', '1e6tok' or '0.1dur', got {text!r}"
            )
        try:
            value = float(match[1])
        except ValueError:
            raise ValueError(f"a time must start with a number, got {text!r}") from None
        return cls(value=value, unit=match[2].lower())

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


def told_as_span(value: object) -> TypeGuard[Span | str]:
    """Whether a value is a Span or has the form of a time string."""
    return isinstance(value, Span) or (isinstance(value, str) and bool(_SPAN.fullmatch(value)))


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The progress of training.

    Args:
        ep: Epochs, including the fraction of the current one.
        ba: Batches trained on.
        sp: Samples trained on.
        tok: Tokens trained on.
        dur: Share of training, in [0, 1].
    """

    ep: float
    ba: float
    sp: float
    tok: float
    dur: float

    def elapsed(self, unit: str) -> float:
        """Return the elapsed time in a unit; raise ValueError for an unknown unit."""
        if unit not in UNITS:
            raise ValueError(f"the unit of a time must be one of {', '.join(UNITS)}, got {unit!r}")
        return float(getattr(self, unit))

    def fraction(self, span: Span) -> float:
        """Return the elapsed fraction of a span, in [0, 1]; 1 for an empty span."""
        if span.value == 0:
            return 1.0
        return min(1.0, max(0.0, self.elapsed(span.unit) / span.value))
