"""Draw what the default saves against the size of a batch, of a context and of a model.

    python tools/draw_ladders.py [--quality tools/results/quality.json] [--out docs/ladders.png]

It draws the rows of the arm ``default`` that ``attent-stream bench --results`` has written.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
BLUE, ORANGE, GREY = "#1f5a96", "#b0570a", "#5a5a5a"
SAVED, AHEAD = "saved at plain's final loss", "ahead of a shorter plain run"


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A panel: its axis, and the rung of each task on it."""

    label: str
    rungs: dict[str, float]


LADDERS = (
    Ladder(
        label="tokens of a batch (contexts of 128)",
        rungs={"mix": 1024, "ladder_batch32": 4096, "ladder_batch128": 16384},
    ),
    Ladder(
        label="tokens of a context (4,096 of a batch)",
        rungs={
            "ladder_batch32": 128,
            "ladder_context256": 256,
            "ladder_context512": 512,
            "ladder_context1024": 1024,
        },
    ),
    Ladder(
        label="million weights (batches of 1,024 tokens)",
        rungs={"mix": 0.3, "ladder_size1m": 1.4, "ladder_size5m": 5.1},
    ),
)


def points(rows: list[dict[str, Any]], ladder: Ladder, value: str, interval: str) -> list[tuple]:
    """Rung, percent, and the ends of its interval (or None) of each task that has them."""
    found = []
    for row in rows:
        if row["task"] in ladder.rungs and row["arm"] == "default" and row[value] is not None:
            ends = None if row[interval] is None else [100 * end for end in row[interval]]
            found.append((ladder.rungs[row["task"]], 100 * row[value], ends))
    return sorted(found, key=lambda point: point[0])


def draw(axes: Axes, rows: list[dict[str, Any]], ladder: Ladder) -> None:
    """Draw a ladder's two lines, with intervals where there are at least three seeds."""
    kinds = (
        (SAVED, "time_saved_vs_plain", "ci", BLUE, "o-", 0.97),
        (AHEAD, "ahead_of_shorter", "ahead_of_shorter_ci", ORANGE, "s--", 1.03),
    )
    for label, value, interval, colour, style, aside in kinds:
        known = points(rows, ladder, value, interval)
        places = [rung * aside for rung, _, _ in known]
        axes.plot(places, [y for _, y, _ in known], style, color=colour, label=label)
        for place, (_, _, ends) in zip(places, known, strict=True):
            if ends is not None:
                axes.plot([place, place], ends, color=colour, lw=2.5, alpha=0.5)
    axes.set_xscale("log", base=2)
    rungs = sorted(set(ladder.rungs.values()))
    axes.set_xticks(rungs, [f"{rung:,}" for rung in rungs])
    axes.minorticks_off()
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xlabel(ladder.label)
    axes.grid(axis="y", alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", type=Path, default=ROOT / "tools" / "results" / "quality.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ladders.png")
    given = parser.parse_args()
    rows = json.loads(given.quality.read_text("utf-8"))
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, len(LADDERS), sharey=True)
    for axes, ladder in zip(panels, LADDERS, strict=True):
        draw(axes, rows, ladder)
    panels[0].set_ylabel("% of plain's steps")
    panels[0].legend(loc="lower left", frameon=False)
    figure.suptitle("What AtteNT() saves on one pass over text")
    FigureCanvasAgg(figure).print_figure(given.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
