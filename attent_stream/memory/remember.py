"""The setting ``remember``: which scores are remembered, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from streaming.base.util import bytes_to_int

from attent_stream.base.registry import nearest

NEVER, WARMUP, ALWAYS = "never", "warmup", "always"
WHEN = (NEVER, WARMUP, ALWAYS)


@dataclass(frozen=True, kw_only=True)
class Remember:
    """What is remembered of the samples.

    Args:
        when: When the losses of training forwards are remembered, at no extra pass: ``never``,
            ``warmup`` (of windows that are kept whole) or ``always``. None: the default of the run.
        per: ``sample``, or the mean of each ``shard`` or ``stream``.
        limit: Bytes of a node, as a number or a string (``2gb``). If a score for each sample takes
            more, each shard's mean is kept, and the log says so.
        detrend: Whether a sample's score is remembered as its difference from the trend of new
            samples' scores, since losses fall during the first epoch; see ``SampleLedger``. None:
            the default of the run.
        score: Score that is remembered if AtteNT's own score is ``remembered``.

    Raises:
        ValueError: A value out of range.
    """

    when: str | None = None
    per: str = "sample"
    limit: int | str = "2gb"
    detrend: bool | None = None
    score: str = "loss"

    def __post_init__(self) -> None:
        if self.when not in (None, *WHEN):
            raise ValueError(f"remember.when has no {self.when!r}, {nearest(self.when, WHEN)}")
        if not isinstance(self.per, str):
            raise ValueError(f"remember.per must be a name, got {self.per!r}")
        if not isinstance(self.detrend, bool | None):
            raise ValueError(f"remember.detrend must be true, false or null, got {self.detrend!r}")
        try:
            limit = self.bytes
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"remember.limit must be bytes or a size such as '2gb', got {self.limit!r}"
            ) from error
        if isinstance(self.limit, bool) or limit < 1:
            raise ValueError(f"remember.limit must be at least 1 byte, got {self.limit!r}")

    @classmethod
    def parse(cls, value: "str | Mapping[str, Any] | None") -> "Remember":
        """From one of ``WHEN``, a mapping of the settings, or None for the defaults.

        Raises:
            ValueError: Anything else, or a value out of range.
        """
        if value is None or isinstance(value, str):
            return cls(when=value)
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise ValueError(
                f"remember must be one of {', '.join(WHEN)} or a mapping of {', '.join(names)}, "
                "got "
                f"{value!r}"
            )
        for name in value:
            if name not in names:
                raise ValueError(f"remember has no {name!r}, {nearest(name, names)}")
        return cls(**value)

    @property
    def bytes(self) -> int:
        """``limit`` as a number."""
        return bytes_to_int(self.limit)
