"""The results of finished runs: a JSON line each, appended; what is there is not run again."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Point:
    """A held-out evaluation.

    Args:
        step: Optimizer steps before it.
        tokens: Trained on before it (images: patches).
        candidates: Tokens forwarded to score them before it.
        seconds: Wall time of training before it, with teaching, without evaluations.
        cpu_seconds: Processor time of the training process, the same.
        teaching_seconds: Of ``seconds``, those spent scoring and choosing.
        flops: Of both, by ``flops.py``.
        measures: Label -> measure.
    """

    step: int
    tokens: int
    candidates: int
    seconds: float
    cpu_seconds: float
    teaching_seconds: float
    flops: float
    measures: dict[str, float]

    @property
    def quality(self) -> float:
        """Mean of the labels' measures, each label alike."""
        return sum(self.measures.values()) / len(self.measures)

    @property
    def step_equivalents(self) -> float:
        """Steps, and teaching in steps: both timed in this very run, in turn, so that a busy
        machine slows them alike.
        """
        training = self.seconds - self.teaching_seconds
        return (
            self.step * (1 + self.teaching_seconds / training) if training > 0 else float(self.step)
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished run.

    Args:
        key: Of its settings.
        task, arm, length, seed, lr, role: Which run it is.
        hardware, date: Where and when.
        points: Its evaluations, the last after training.
        note: What should be known about it: where its data came from.
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

    @property
    def last(self) -> Point:
        """The evaluation after training."""
        return self.points[-1]

    def line(self) -> str:
        """As JSON, without a line break."""
        return json.dumps(asdict(self))


def record_of(value: dict[str, Any]) -> Record:
    """A record from its JSON value; raises TypeError or KeyError for another version's."""
    return Record(**{**value, "points": tuple(Point(**point) for point in value["points"])})


def read_records(path: Path) -> list[Record]:
    """Those in a file that are whole, in order; a line that a killed run left half-written is
    passed over.
    """
    return list(_records(path)) if path.is_file() else []


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            yield record_of(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue


def append(path: Path, record: Record) -> None:
    """Add a record, on a line of its own whatever the last run left, and onto the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(record.line().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
