"""Draw the pictures of docs/concepts.md: the same bytes each time.

python tools/draw_concepts.py [--out docs/pictures] [--png FOLDER]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, PALE = "#1b1b1b", "#5a5a5a", "#eeeeee"
BLUE, PALE_BLUE = "#1f5a96", "#d3e5f7"
ORANGE, PALE_ORANGE = "#b0570a", "#fcdcb4"
TEXT, SMALL, HEADING = 15, 13, 17


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure whose axes count in tenths of an inch, y downwards."""
    figure = Figure(figsize=(width / 10, height / 10), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, w: float, h: float, fill: str, edge: str) -> None:
    """A box with round corners."""
    style = "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=fill, ec=edge, lw=1.8))


def cell(axes: Axes, x: float, y: float, text: str, fill: str, edge: str, lw: float = 1.0) -> None:
    """A cell of a table, 6 by 4.6."""
    axes.add_patch(Rectangle((x, y), 6, 4.6, fc=fill, ec=edge, lw=lw))
    axes.text(x + 3, y + 2.4, text, ha="center", va="center", size=TEXT, color=INK)


def write(axes: Axes, x: float, y: float, text: str, size: float = TEXT, **more: object) -> None:
    """Text around a point, centred unless told otherwise."""
    given = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.35} | more
    axes.text(x, y, text, size=size, **given)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK
) -> None:
    """A straight arrow."""
    style = "-|>,head_length=7,head_width=4"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, color=color, lw=2, shrinkA=0))


def window() -> Figure:
    """A window's candidates, their scores, and the lessons chosen lane by lane."""
    slots, lanes, kept = 3, 2, 6
    scores = np.array(
        [
            [[0.2, 0.7, 0.4], [0.8, 0.5, 0.9]],
            [[0.6, 0.1, 0.3], [0.6, 1.0, 0.7]],
            [[0.5, 0.3, 0.8], [0.9, 0.6, 0.4]],
            [[0.2, 0.6, 0.1], [0.5, 0.8, 0.5]],
        ]
    )
    fills, edges = (PALE_BLUE, PALE_ORANGE), (BLUE, ORANGE)
    figure, axes = canvas(100, 46)
    write(axes, 23.5, 3, "Window: 4 rows of candidates", HEADING, weight="bold")
    write(axes, 76.5, 3, "Its 2 rows of lessons", HEADING, weight="bold")
    for lane in range(lanes):
        left, right = 4 + lane * 21, 57 + lane * 21
        for x in (left, right):
            write(axes, x + 9, 8, f"lane {lane}", TEXT, color=edges[lane], weight="bold")
        flat = scores[:, lane].reshape(-1)
        chosen = np.sort(np.argsort(-flat, kind="stable")[:kept])
        for place, score in enumerate(flat):
            x, y = left + place % slots * 6, 11 + place // slots * 4.6
            cell(axes, x, y, f"{score:.1f}", "white" if place not in chosen else fills[lane], GREY)
        for slot, place in enumerate(chosen):
            x, y = right + slot % slots * 6, 15.6 + slot // slots * 4.6
            cell(axes, x, y, f"{flat[place]:.1f}", fills[lane], edges[lane], 1.6)
    write(axes, 1.2, 20.2, "rows", TEXT, rotation=90, color=GREY)
    arrow(axes, (45, 20.2), (55, 20.2))
    write(axes, 50, 14.5, "select\nkeep: 0.5", TEXT)
    write(
        axes,
        50,
        38,
        "Each number is a candidate's score. Filled: chosen, the 6 highest of 12 in each lane.\n"
        "A sample never leaves its lane, and each lane keeps equally many:\n"
        "0.4 is kept in lane 0, and 0.6 is dropped in lane 1.",
        TEXT,
    )
    return figure


def segment() -> Figure:
    """Two segments, one below the other: candidate and lesson steps interleaved."""
    roles = "CCLCCCLCCCLL"  # window.layout.interleave(candidates=8, lessons=4, gap=1)
    due = 10  # the step of the lesson at which the next window is chosen
    figure, axes = canvas(100, 70)
    cell(axes, 4, 2, "C", PALE_BLUE, BLUE, 1.6)
    write(axes, 12, 4.4, "candidate step: a batch of the next window is read and scored", ha="left")
    cell(axes, 4, 8.5, "L", PALE_ORANGE, ORANGE, 1.6)
    write(axes, 12, 10.9, "lesson step: the Trainer trains on a batch of this window", ha="left")
    for number, y in ((5, 23), (6, 52)):
        write(axes, 4, y - 3.4, f"Segment {number}", HEADING, ha="left", weight="bold")
        what = f"lessons of window {number}, candidates of window {number + 1}"
        write(axes, 24, y - 3.4, what, ha="left")
        for step, role in enumerate(roles):
            fill, edge = (PALE_BLUE, BLUE) if role == "C" else (PALE_ORANGE, ORANGE)
            cell(axes, 4 + step * 7, y, role, fill, edge, 1.6)
        arrow(axes, (89, y + 2.3), (97, y + 2.3), GREY)
        write(axes, 93, y - 0.6, "time", SMALL, color=GREY)
    x = 4 + due * 7 + 3
    arrow(axes, (x, 34.5), (x, 28.4))
    write(
        axes,
        x + 13,
        39,
        "Before this step: all candidates of window 6 are scored.\n"
        "Its lessons are chosen, and segment 6 is published.",
        ha="right",
    )
    write(
        axes,
        50,
        64,
        "A window of 8 rows at keep 0.5: 8 candidate steps, 4 lesson steps.\n"
        "Workers read segment 6 ahead while the last lesson of segment 5 is trained on.",
    )
    return figure


def board() -> Figure:
    """The board between a rank's training process and its loader workers."""
    figure, axes = canvas(100, 66)
    box(axes, 2, 2, 30, 42, "white", INK)
    write(axes, 17, 5.5, "Training process", HEADING, weight="bold")
    write(axes, 17, 9.3, "(one rank)", SMALL, color=GREY)
    parts = (
        (12, "Order and teacher:\nplan the next segment", PALE, GREY),
        (22.5, "AtteNT: scores candidates,\nselects lessons", PALE_BLUE, BLUE),
        (33, "Trainer:\ntrains on lessons", PALE_ORANGE, ORANGE),
    )
    for y, text, fill, edge in parts:
        box(axes, 4, y, 26, 8.5, fill, edge)
        write(axes, 17, y + 4.4, text, SMALL)

    box(axes, 44, 2, 20, 42, "white", INK)
    write(axes, 54, 5.5, "Board", HEADING, weight="bold")
    write(axes, 54, 9.3, "(shared memory)", SMALL, color=GREY)
    for y, name in ((12, "segment 5"), (28, "segment 6")):
        box(axes, 46, y, 16, 13.5, PALE, GREY)
        write(axes, 54, y + 6.9, f"{name}:\nsample ids\nof each step", SMALL)

    box(axes, 76, 2, 22, 42, "white", INK)
    write(axes, 87, 5.5, "Workers", HEADING, weight="bold")
    write(axes, 87, 9.3, "(of the loader)", SMALL, color=GREY)
    for worker, y in ((0, 12), (1, 28)):
        box(axes, 78, y, 18, 13.5, PALE, GREY)
        steps = ", ".join(str(worker + 2 * step) for step in range(3))
        write(axes, 87, y + 6.9, f"worker {worker}\nsteps {steps}, ...", SMALL)

    arrow(axes, (32, 16), (44, 16))
    write(axes, 38, 13.6, "publishes", SMALL)
    arrow(axes, (64, 16), (76, 16))
    write(axes, 70, 13.6, "ids", SMALL)

    box(axes, 70, 56, 28, 8, "white", INK)
    write(axes, 84, 60, "Object store, shard cache", SMALL)
    arrow(axes, (89, 56), (89, 44))
    write(axes, 90, 50, "samples", SMALL, ha="left")

    axes.plot([82, 82, 17], [44, 50, 50], color=INK, lw=2, solid_joinstyle="round")
    arrow(axes, (17, 50), (17, 44))
    write(axes, 48, 53, "batches, in the order of the steps", SMALL)
    return figure


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--png", type=Path, help="also write PNG files to this folder")
    args = parser.parse_args()
    # Text stays text, so files are small. A fixed salt makes the ids of elements repeatable.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "concepts"}
    args.out.mkdir(parents=True, exist_ok=True)
    for draw in (window, segment, board):
        with matplotlib.rc_context(settings):
            figure = draw()
            FigureCanvasSVG(figure)
            figure.savefig(
                args.out / f"{draw.__name__}.svg", metadata={"Date": None, "Creator": None}
            )
            if args.png:
                args.png.mkdir(parents=True, exist_ok=True)
                FigureCanvasAgg(figure)
                figure.savefig(args.png / f"{draw.__name__}.png", dpi=100)


if __name__ == "__main__":
    main()
