"""Curves of what runs have measured, and of their choices."""

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attent_stream.fit.metric_log import EVALUATED, TRAINED
from attent_stream.report.choices import Choices, windows
from attent_stream.report.metrics import Measured, smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0.1, 0.5, 0.9)
_KEPT, _DROPPED = "#d1495b", "#5c6b73"
_TRAIN = "loss/train/total"
_SCALE = "Perplexity"
_MORE = {  # metrics of AtteNT, with their titles
    "attent/share_of_step": "Teaching's share of a step",
    "attent/noise_scale": "Noise scale of gradients, tokens",
    "attent/memorized": "Share of the loss that is memorized",
    "attent/target_loss": "Loss on the target, nats a token",
}


def curves(runs: dict[str, Choices]) -> "Figure":
    """Plot, for each run in a row: the share kept, scores of kept and dropped samples, and each
    stream's share of candidates (dashed) and of kept samples (solid).
    """
    figure, grid = _grid(len(runs))
    for (name, choices), (kept, scores, streams) in zip(runs.items(), grid, strict=True):
        parts = windows(choices.rows)
        batches = [int(choices.rows["batch"][part.start]) for part in parts]
        _kept(kept, choices, batches, parts)
        _scores(scores, choices, batches, parts)
        _streams(streams, choices, batches, parts)
        kept.set_ylabel(f"{name}\nshare kept" if len(runs) > 1 else "share kept")
        for axis in (kept, scores, streams):
            axis.set_xlabel("batches")
    return figure


def measures(runs: dict[str, Measured]) -> "Figure | None":
    """Plot what runs have measured on the same axes: the training loss, each held-out measure over
    tokens and over time, and what AtteNT reports. None if they have measured nothing.
    """
    from matplotlib.ticker import EngFormatter

    names = {name for one in runs.values() for name in one.curves}
    amount = _amount(runs)
    plots = [(_TRAIN, amount, "Training loss, smoothed")] if _TRAIN in names else []
    # Perplexity is only another scale of the loss
    held_out = [name for name in names if name.startswith(EVALUATED) and _SCALE not in name]
    for name in sorted(held_out):
        title = name.removeprefix(EVALUATED)
        plots += [(name, amount, title), (name, "seconds", f"{title}, over time")]
    plots += [(name, "batch", title) for name, title in _MORE.items() if name in names]
    if not plots:
        return None
    figure, grid = _grid(-(-len(plots) // 3))
    axes = grid.reshape(-1)
    for (name, axis_name, title), axis in zip(plots, axes, strict=False):
        for run, one in runs.items():
            if name not in one.curves:
                continue
            curve = one.curves[name]
            noisy = name in (_TRAIN, *_MORE) or name.startswith(TRAINED)
            values = smoothed(curve.values) if noisy else curve.values
            marker = "" if noisy else "o"
            axis.plot(curve.at[axis_name], values, marker=marker, markersize=3, label=run)
        axis.set_title(title)
        axis.set_xlabel("batches" if axis_name == "batch" else axis_name)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        if len(runs) > 1:
            axis.legend(frameon=False, fontsize="small")
    for axis in axes[len(plots) :]:
        axis.set_visible(False)
    return figure


def _grid(rows: int) -> tuple["Figure", NDArray]:
    """A figure with so many rows of three plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 3, squeeze=False)
    for axis in grid.reshape(-1):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, grid


def _amount(runs: dict[str, Measured]) -> str:
    """Tokens, where runs have any, else samples."""
    curves = [curve for one in runs.values() for curve in one.curves.values()]
    return "tokens" if any(curve.at["tokens"].any() for curve in curves) else "samples"


def svg(figure: "Figure") -> str:
    """The figure as an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


# Each axis is given the batches at which windows were chosen, and the rows of each window.


def _kept(axis, choices: Choices, batches: list[int], parts: list[slice]) -> None:
    axis.plot(batches, [choices.rows["kept"][part].mean() for part in parts], color=_KEPT)
    axis.set_ylim(0, 1.05)
    axis.set_title("Share kept of logged candidates")


def _scores(axis, choices: Choices, batches: list[int], parts: list[slice]) -> None:
    rows = choices.rows
    axis.set_title("Scores: median, and from the 10% to the 90% quantile")
    if not np.isfinite(rows["score"]).any():
        axis.text(0.5, 0.5, "no scores", ha="center", transform=axis.transAxes)
        return
    for label, color, wanted in (("kept", _KEPT, True), ("dropped", _DROPPED, False)):
        at, found = [], []
        for batch, part in zip(batches, parts, strict=True):
            values = rows["score"][part][rows["kept"][part] == wanted]
            values = values[np.isfinite(values)]
            if len(values):
                at.append(batch)
                found.append(np.quantile(values, QUANTILES))
        if at:
            low, middle, high = np.array(found).T
            axis.plot(at, middle, color=color, label=label)
            axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
    axis.legend(frameon=False)


def _streams(axis, choices: Choices, batches: list[int], parts: list[slice]) -> None:
    streams, kept = choices.rows["stream"], choices.rows["kept"].astype(bool)
    for number, stream in enumerate(choices.streams):
        of = streams == number
        candidates = [_share(of[part]) for part in parts]
        (line,) = axis.plot(batches, candidates, linestyle="--", alpha=0.6)
        shares = [_share(of[part][kept[part]]) for part in parts]
        axis.plot(batches, shares, color=line.get_color(), label=stream.name)
    axis.set_ylim(bottom=0)
    axis.set_title("Streams' shares: of candidates (dashed), of kept")
    axis.legend(frameon=False, fontsize="small")


def _share(which: NDArray[np.bool_]) -> float:
    return float(which.mean()) if len(which) else float("nan")
