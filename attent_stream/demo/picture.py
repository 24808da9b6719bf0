"""Plot the results of the demo's arms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attent_stream.demo.report import ArmResult, ScoredWindow, clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"uniform": "#4d4d4d", "random": "#2a7fb8", "published": "#d99a2b", "taught": "#d1495b"}
KEPT, DROPPED = "#d1495b", "#9aa5b1"


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
    scored = next((r for r in results if r.windows), None)
    windows = scored.windows if scored else ()
    part = max(1, len(windows) // 5)
    of = f"Scores of {scored.name}" if scored else "Candidates' scores"
    _histogram(early, windows[:part], f"{of}, early")
    _histogram(late, windows[-part:], f"{of}, late")
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
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + (high - low) * len(results) / 12)  # the legend is above the curves
    axes.legend(loc="upper right", frameon=False)


def _histogram(axes: "Axes", windows: Sequence[ScoredWindow], title: str) -> None:
    axes.set_title(title)
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
        f"{title}: batch {first}" if first == last else f"{title}: batches {first} to {last}"
    )
