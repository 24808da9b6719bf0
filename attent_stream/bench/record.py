"""Results of finished runs, stored as JSON lines."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Point:
    """A held-out evaluation. Counts and times are those before it.

    Args:
        step: Optimizer steps.
        tokens: Trained tokens (patches of images).
        candidates: Scored tokens.
        seconds: Wall time of training, with teaching and without evaluations.
        cpu_seconds: Processor time of the training process in the same period.
        teaching_seconds: Part of ``seconds`` spent scoring and choosing.
        flops: Floating point operations, by ``flops.py``.
        measures: Measures by label, of which the quality is the mean.
        beside: Measures of the other labels.
    """

    step: int
    tokens: int
    candidates: int
    seconds: float
    cpu_seconds: float
    teaching_seconds: float
    flops: float
    measures: dict[str, float]
    beside: dict[str, float] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """The mean of the labels' measures."""
        return sum(self.measures.values()) / len(self.measures)

    @property
    def step_equivalents(self) -> float:
        """Steps plus teaching time in steps, both timed in the same run on the same machine."""
        training = self.seconds - self.teaching_seconds
        return (
            self.step * (1 + self.teaching_seconds / training) if training > 0 else float(self.step)
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished run.

    Args:
        key: Hash of its settings.
        task, arm, length, seed, lr, role: As in ``plan.Run``.
        hardware, date: The machine in words, and the day.
        points: The evaluations, the last one after training.
        note: The source of its data.
        positions: Held-out loss in each eighth of a sample after training; empty if not measured.
    """

    key: str
    task: str
    arm: str
    length: float
    seed: int
    lr: float
    role: str
    hardware: str
    date: str
    points: tuple[Point, ...]
    note: str = ""
    positions: tuple[float, ...] = ()

    def measured_by(self, quality_of: list[str] | None) -> "Record":
        """The same run, with the labels that now make up the quality; None for all."""
        points = []
        for point in self.points:
            every = {**point.measures, **point.beside}
            counted = set(every) if quality_of is None else set(quality_of)
            measures = {label: value for label, value in every.items() if label in counted}
            beside = {label: value for label, value in every.items() if label not in counted}
            points.append(replace(point, measures=measures, beside=beside))
        return replace(self, points=tuple(points))

    @property
    def last(self) -> Point:
        """The evaluation after training."""
        return self.points[-1]

    def line(self) -> str:
        """Return the record as a line of JSON."""
        return json.dumps(asdict(self))


def record_of(value: dict[str, Any]) -> Record:
    """Build a record from its JSON value; raise TypeError or KeyError for another version's."""
    points = tuple(Point(**point) for point in value["points"])
    return Record(**{**value, "points": points, "positions": tuple(value.get("positions", ()))})


def read_records(path: Path) -> list[Record]:
    """Read a file's records in order, without lines cut short by a killed run."""
    return list(_records(path)) if path.is_file() else []


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            yield record_of(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue


def append(path: Path, record: Record) -> None:
    """Append a record on a new line, even after a half-written one, and sync it to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(record.line().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
