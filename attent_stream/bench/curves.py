"""Plot a task's held-out measure over cost, time, tokens and FLOPs, and the frontiers."""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attent_stream.bench.compare import Comparison
from attent_stream.bench.plan import ARM
from attent_stream.bench.record import Record
from attent_stream.bench.settings import PLAIN, BenchConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "step_equivalents": "step-equivalents (steps, and teaching by measured time)",
    "seconds": "training time in seconds, teaching included",
    "tokens": "tokens (patches) trained on",
    "flops": "FLOPs",
}


def curves(bench: BenchConfig, records: Sequence[Record], comparison: Comparison) -> "Figure":
    """Plot quality over the cost of all lengths, and each arm's longest run over four costs.

    Error bars are the seeds' intervals; bands are the seeds' range.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{bench.task}: {bench.title or bench.metric}", fontsize=12)
    # Pale colours from the eleventh arm on.
    pairs = colormaps["tab20"].colors
    colors = dict(zip(bench.arms, (pairs[::2] + pairs[1::2]) * 2, strict=False)) | {
        PLAIN: (0.1, 0.1, 0.1)
    }
    axes = figure.subplots(2, 3).flatten()
    runs = defaultdict(list)
    for record in records:
        if record.role == ARM and record.arm in bench.arms and record.seed in comparison.seeds:
            runs[record.arm, record.length].append(record)
    _frontiers(axes[0], bench, comparison, colors)
    for axis, (name, label) in zip(axes[1:], AXES.items(), strict=False):
        axis.set_xlabel(label)
        for arm, config in bench.arms.items():
            _curve(axis, runs[arm, max(config.lengths)], name, colors[arm])
    axes[5].axis("off")
    axes[5].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
    for axis in axes[:5]:
        axis.set_ylabel(f"held-out {bench.metric}")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def png(figure: "Figure") -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _curve(axis: "Axes", runs: Sequence[Record], name: str, color: tuple) -> None:
    if not runs:
        return
    count = min(len(run.points) for run in runs)
    x = np.mean([[getattr(p, name) for p in run.points[:count]] for run in runs], axis=0)
    y = np.array([[p.quality for p in run.points[:count]] for run in runs])
    axis.plot(x, y.mean(0), marker="o", markersize=3, color=color)
    axis.fill_between(x, y.min(0), y.max(0), color=color, alpha=0.15, linewidth=0)


def _frontiers(axis: "Axes", bench: BenchConfig, comparison: Comparison, colors: dict) -> None:
    unit = "seconds" if bench.cost == "seconds" else "step-equivalents"
    axis.set_title("every length, its learning rate decayed")
    axis.set_xlabel(f"cost of the whole run in {unit}")
    for arm in bench.arms:
        rows = [row for row in comparison.rows if row.arm == arm]
        x, y = [row.cost for row in rows], np.array([row.quality.value for row in rows])
        low = [row.quality.value if row.quality.low is None else row.quality.low for row in rows]
        high = [row.quality.value if row.quality.high is None else row.quality.high for row in rows]
        style = "-" if arm == PLAIN else "--"
        spread = np.maximum(0, [y - low, high - y])
        axis.errorbar(
            x, y, spread, marker="o", capsize=3, linestyle=style, color=colors[arm], label=arm
        )
