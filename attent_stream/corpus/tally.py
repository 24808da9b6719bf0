"""Count good and bad records, and show progress."""

import sys

from tqdm import tqdm

from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import BadRecords

FIRST = 5


class Tally:
    """The good and bad records of a stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.good = 0
        self.counts: dict[str, int] = {}
        self.first: dict[str, list[str]] = {}

    def add_bad(self, reason: str, location: str, count: int = 1) -> None:
        """Count bad records from `location` on."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        first = self.first.setdefault(reason, [])
        if len(first) < FIRST:
            first.append(location)

    def check(self) -> None:
        """Raise CorpusError if more than half of the records are bad or there are none."""
        bad = sum(self.counts.values())
        reasons = ", ".join(
            f"{n} x {reason} (first: {self.first[reason][0]})" for reason, n in self.counts.items()
        )
        require(
            bad <= self.good,
            f"stream {self.stream!r}: {bad} of {bad + self.good} records are bad, more than half: "
            f"{reasons}",
        )
        require(self.good > 0, f"stream {self.stream!r} holds no record")

    def records(self) -> tuple[BadRecords, ...]:
        """Return the counts, most frequent reason first."""
        ordered = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return tuple(
            BadRecords(
                stream=self.stream,
                reason=reason,
                count=self.counts[reason],
                first=tuple(self.first[reason]),
            )
            for reason in ordered
        )


def progress_bar(total: int, what: str, show: bool | None, unit: str = "B") -> tqdm:
    """Return a bar on stderr that appears after 2 s; `show` None means only on a terminal."""
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=True,
        delay=2,
        file=sys.stderr,
        disable=None if show is None else not show,
    )
