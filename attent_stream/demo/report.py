"""Results of the demo's arms as a table, sentences and JSON lines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"uniform": "#4d4d4d", "random": "#2a7fb8", "published": "#d99a2b", "taught": "#d1495b"}
KEPT, DROPPED = "#d1495b", "#9aa5b1"
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


def picture(results: Sequence[ArmResult], title: str, score_name: str) -> "Figure":
    """Plot held-out losses, and histograms of the scores of kept and dropped candidates.

    Args:
        results: The arms; the first with scored windows gives the histograms.
        title: The figure's title.
        score_name: Name and unit of the score.

    Returns:
        A figure of four axes: loss over time, loss over tokens, scores early and late in training.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    grid = figure.add_gridspec(2, 3)
    time, tokens = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[:, 1])
    _curves(time, results, "seconds", "training time in seconds, teaching included")
    _curves(tokens, results, "tokens", "tokens trained on")
    tokens.xaxis.set_major_formatter(EngFormatter(sep=""))
    time.set_title("Held-out loss over time")
    tokens.set_title("Held-out loss over trained tokens")
    early, late = figure.add_subplot(grid[0, 2]), figure.add_subplot(grid[1, 2])
    late.set_xlabel(score_name)
    windows = next((r.windows for r in results if r.windows), ())
    part = max(1, len(windows) // 5)
    _histogram(early, windows[:part], "early")
    _histogram(late, windows[-part:], "late")
    if windows:
        early.sharex(late)
        early.tick_params(labelbottom=False)
        early.legend(loc="upper left", fontsize=9, frameon=False)
    return figure


def _curves(axes: "Axes", results: Sequence[ArmResult], quantity: str, label: str) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel("cross-entropy in nats per token")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for r in results:
        # The loss before training is the same for all, and would compress the curves.
        points = [p for p in r.points if p.batch > 0] or r.points
        x = [getattr(p, quantity) for p in points]
        color = COLORS.get(r.name, "#6a4c93")
        text = f"{r.name}: ends at {r.last.loss:.3f} after {clock(r.last.seconds)}"
        axes.plot(
            x,
            [p.loss for p in points],
            marker="o",
            markersize=4,
            linewidth=1.8,
            color=color,
            label=text,
        )
    axes.set_xlim(left=0)
    axes.legend(loc="upper right", frameon=False)


def _histogram(axes: "Axes", windows: Sequence[ScoredWindow], when: str) -> None:
    axes.set_title(f"Candidates' scores {when} in training")
    axes.set_ylabel("samples")
    axes.spines[["top", "right"]].set_visible(False)
    if not windows:
        axes.text(
            0.5,
            0.5,
            "no window was chosen by score",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
        axes.set_yticks([])
        return
    scores, kept = (
        np.concatenate([w.scores for w in windows]),
        np.concatenate([w.kept for w in windows]),
    )
    finite = np.isfinite(scores)
    scores, kept = scores[finite], kept[finite]
    if not scores.size:
        return
    # Outlined fills show both shapes where they overlap.
    bins = np.linspace(scores.min(), scores.max() + 1e-6, 41)
    for name, mask, color in (("dropped", ~kept, DROPPED), ("kept", kept, KEPT)):
        axes.hist(
            scores[mask],
            bins,
            histtype="stepfilled",
            color=color,
            alpha=0.45,
            edgecolor=color,
            label=name,
        )
    first, last = windows[0].batch, windows[-1].batch
    axes.set_title(
        f"Candidates' scores {when}: "
        + (f"batch {first}" if first == last else f"batches {first} to {last}")
    )


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None  # JSON has no NaN.


def _quantiles(scores: NDArray) -> list[float] | None:
    scores = scores[np.isfinite(scores)]
    return (
        [round(float(q), 5) for q in np.quantile(scores, (0.1, 0.5, 0.9))] if scores.size else None
    )
