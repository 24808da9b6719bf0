"""Results of the demo's arms as a table, sentences and JSON lines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "arm",
    "held-out loss",
    "tokens trained",
    "candidates scored",
    "wall time",
    "spent teaching",
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A held-out evaluation.

    Args:
        batch: Lesson batches before it.
        tokens: Trained tokens before it.
        seconds: Training time before it, with teaching and without evaluations.
        loss: Mean cross-entropy in nats per token.
    """

    batch: int
    tokens: int
    seconds: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class ScoredWindow:
    """A window that was chosen by score.

    Args:
        batch: Lesson batches before the choice.
        scores: The candidates' scores, float of shape (N,).
        kept: Which candidates became lessons, bool of shape (N,).
    """

    batch: int
    scores: NDArray
    kept: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """A training run.

    Args:
        name: The arm's name.
        points: The evaluations, from before training to after it.
        candidates: Number of scored samples.
        teaching_seconds: Time spent scoring and choosing, part of the last point's seconds.
        windows: The windows chosen by score, in order.
        settings: The run's settings as plain values.
    """

    name: str
    points: tuple[Point, ...]
    candidates: int
    teaching_seconds: float
    windows: tuple[ScoredWindow, ...]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError(f"arm {self.name!r} needs at least one evaluation, got none")

    @property
    def last(self) -> Point:
        """The evaluation after training."""
        return self.points[-1]

    @property
    def teaching_share(self) -> float:
        """The share of training time spent scoring and choosing, in [0, 1]."""
        return self.teaching_seconds / self.last.seconds if self.last.seconds > 0 else 0.0


def clock(seconds: float) -> str:
    """Format seconds as '59.9 s' or '1 min 23 s'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def table(results: Sequence[ArmResult]) -> str:
    """Format the arms as a table with aligned columns."""
    rows = [COLUMNS]
    for r in results:
        numbers = (
            f"{r.last.loss:.4f}",
            f"{r.last.tokens:,}",
            f"{r.candidates:,}",
            clock(r.last.seconds),
        )
        rows.append((r.name, *numbers, f"{100 * r.teaching_share:.1f} %"))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format rows with aligned columns and a rule below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])

    return "\n".join([line(rows[0]), "  ".join("-" * w for w in widths), *map(line, rows[1:])])


def comparison(results: Sequence[ArmResult], base: str = "uniform") -> str:
    """Compare each other arm with ``base`` in a line; return '' if either is missing."""
    found = {r.name: r for r in results}
    if base not in found:
        return ""
    reference, lines = found[base].last, []
    for name, result in found.items():
        if name == base:
            continue
        difference = result.last.loss - reference.loss
        verdict = "level" if abs(difference) < 5e-5 else f"{abs(difference):.4f} nats a token "
        verdict += "" if verdict == "level" else "lower" if difference < 0 else "higher"
        ratio = result.last.seconds / reference.seconds if reference.seconds > 0 else float("nan")
        lines.append(
            f"{name} against {base}, at equal trained tokens: held-out loss {verdict}, "
            f"{ratio:.2f}x the wall time."
        )
    return "\n".join(lines)


def json_line(result: ArmResult) -> str:
    """Format an arm as a line of JSON, with its curve and the quantiles of its scores."""
    last = result.last
    record = {
        "arm": result.name,
        "held_out_loss": _finite(last.loss),
        "lesson_batches": last.batch,
        "tokens_trained": last.tokens,
        "candidates_scored": result.candidates,
        "seconds": round(last.seconds, 3),
        "teaching_seconds": round(result.teaching_seconds, 3),
        "teaching_share": round(result.teaching_share, 4),
        "settings": result.settings,
        "curve": [
            {
                "batch": p.batch,
                "tokens": p.tokens,
                "seconds": round(p.seconds, 3),
                "loss": _finite(p.loss),
            }
            for p in result.points
        ],
        "windows": [
            {
                "batch": w.batch,
                "kept": _quantiles(w.scores[w.kept]),
                "dropped": _quantiles(w.scores[~w.kept]),
            }
            for w in result.windows
        ],
    }
    return json.dumps(record)


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None  # JSON has no NaN.


def _quantiles(scores: NDArray) -> list[float] | None:
    scores = scores[np.isfinite(scores)]
    return (
        [round(float(q), 5) for q in np.quantile(scores, (0.1, 0.5, 0.9))] if scores.size else None
    )
