"""Format a bench's results as a text table, an HTML page and rows of quality.json."""

import base64
from collections.abc import Sequence
from html import escape

from attent_stream.bench.compare import Comparison
from attent_stream.bench.intervals import Estimate
from attent_stream.bench.positions import told
from attent_stream.bench.record import Record
from attent_stream.bench.settings import PLAIN, BenchConfig
from attent_stream.demo.report import aligned, clock

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1300px;padding:0 "
    "1em;color:#222}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25em "
    ".7em;text-align:right;"
    "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)
HOW = (
    "Ahead of shorter: one minus the ratio of the cost to that of a plain run with the same "
    "held-out quality and a learning rate decayed over its own length, interpolated between plain "
    "lengths. Ahead of random: the same for random choice with the same schedule. Step: processor "
    "time of a step without teaching, relative to plain. Saved: one minus the ratio of the cost at "
    "which the arm reaches the quality of full-length plain to the cost of plain. Brackets: 95% "
    "bootstrap intervals over seeds, from three seeds on."
)


def percent(estimate: Estimate) -> str:
    """Format an estimate as '+12.3% [+8.1, +15.0]', or a dash."""
    if estimate.value is None:
        return "-"
    interval = (
        "" if estimate.low is None else f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    )
    return f"{100 * estimate.value:+.1f}%{interval}"


def number(estimate: Estimate, digits: int = 4, sign: str = "") -> str:
    """Format a value and its interval, or a dash."""
    if estimate.value is None:
        return "-"
    shown = f"{sign}.{digits}f"
    interval = "" if estimate.low is None else f" [{estimate.low:{shown}}, {estimate.high:{shown}}]"
    return f"{estimate.value:{shown}}{interval}"


def cells(bench: BenchConfig, found: Comparison) -> list[tuple[str, ...]]:
    """Return the heading and a row for each arm and length."""
    labels = list(found.rows[0].labels)
    shown = labels if len(labels) > 1 else []
    unit = "seconds" if bench.cost == "seconds" else "step-equivalents"
    heading = (
        "arm",
        "length",
        bench.metric,
        *shown,
        "steps",
        unit,
        "wall",
        "teaching",
        "step",
        "PFLOP",
        "ahead of shorter",
    )
    rows = [(*heading, "at equal cost", "ahead of random", "against random")]
    for row in found.rows:
        rows.append(
            (
                row.arm,
                f"{row.length:g}",
                number(row.quality),
                *(f"{row.labels[label]:.4f}" for label in shown),
                f"{row.steps:,.0f}",
                f"{row.cost:,.0f}",
                clock(row.seconds),
                f"{100 * row.teaching_share:.1f}%",
                f"{row.step_ratio:.2f}",
                f"{row.flops / 1e15:.3g}",
                percent(row.ahead_of_shorter),
                number(row.at_equal_cost, sign="+"),
                percent(row.ahead_of_random),
                number(row.against_random, sign="+"),
            )
        )
    return rows


def lines(bench: BenchConfig, records: Sequence[Record], found: Comparison) -> list[str]:
    """Return a line for each arm with its savings at plain's quality, then all notes, then losses
    by position.
    """
    said = []
    for arm, estimate in found.saved.items():
        if arm == PLAIN:
            continue
        result = (
            percent(estimate)
            if estimate.value is not None
            else f"not measured: {found.why.get(arm, 'undefined')}"
        )
        note = bench.arms[arm].note
        said.append(
            f"{arm}: saved at plain's final quality: {result}" + (f" ({note})" if note else "")
        )
    said += [f"{row.arm} {row.length:g}: {note}" for row in found.rows for note in row.notes]
    return said + told(records)


def heading(bench: BenchConfig, records: Sequence[Record], found: Comparison) -> str:
    """Return a line with task, machine, dates, seeds, learning rate and data."""
    used = [r for r in records if r.role == "arm"]
    machines, dates = sorted({r.hardware for r in used}), sorted({r.date for r in used})
    rates = sorted({r.lr for r in used})
    swept = ", ".join(f"{r.lr:g}: {r.last.quality:.4f}" for r in records if r.role == "sweep")
    edge = (
        len(bench.learning_rates) > 2
        and rates
        and rates[0] in (min(bench.learning_rates), max(bench.learning_rates))
    )
    return (
        f"{bench.task}: {bench.title} | {'; '.join(machines)} | "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))} | "
        f"{len(found.seeds)} seed(s) | peak learning rate {', '.join(f'{x:g}' for x in rates)}"
        + (
            f" (tried: {swept}{'; the best is at the edge of the sweep' if edge else ''})"
            if swept
            else ""
        )
        + f" | {'; '.join(sorted({r.note for r in used}))}"
    )


def table(bench: BenchConfig, found: Comparison) -> str:
    """Format the cells with aligned columns."""
    return aligned(cells(bench, found))


def section(
    bench: BenchConfig, records: Sequence[Record], found: Comparison, picture: bytes
) -> str:
    """Format a task as HTML, with escaped texts and an embedded picture."""
    first, *rest = cells(bench, found)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in first)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rest
    )
    said = "".join(f"<li>{escape(line)}</li>" for line in lines(bench, records, found))
    data = base64.b64encode(picture).decode()
    return (
        f"<h2>{escape(bench.task)}</h2><p>{escape(heading(bench, records, found))}</p>"
        f"<table><tr>{head}</tr>{body}</table>"
        f'<ul>{said}</ul><img alt="curves of {escape(bench.task)}" '
        f'src="data:image/png;base64,{data}">'
    )


def page(sections: Sequence[str]) -> str:
    """Return a self-contained HTML page."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>attent-stream bench</title>'
        f"<style>{STYLE}</style><h1>attent-stream "
        f"bench</h1><p>{escape(HOW)}</p>{''.join(sections)}</html>\n"
    )


def quality_rows(
    bench: BenchConfig, records: Sequence[Record], found: Comparison, command: str
) -> list[dict]:
    """Return the arms' rows of quality.json; ``why`` explains null values.

    ``ahead_of_*`` refer to the longest length with a value against shorter plain runs, else to the
    longest.
    """
    used = [r for r in records if r.role == "arm"]
    made = []
    for arm, saved in found.saved.items():
        if arm == PLAIN:
            continue
        rows = [row for row in found.rows if row.arm == arm]
        row = max(rows, key=lambda row: (row.ahead_of_shorter.value is not None, row.length))
        made.append(
            {
                "task": bench.task,
                "arm": arm,
                "hardware": "; ".join(sorted({r.hardware for r in used})),
                "date": max(r.date for r in used),
                "seeds": len(found.seeds),
                "time_saved_vs_plain": saved.value,
                "ci": saved.interval,
                "ahead_of_random": row.ahead_of_random.value,
                "ahead_of_random_ci": row.ahead_of_random.interval,
                "ahead_of_shorter": row.ahead_of_shorter.value,
                "ahead_of_shorter_ci": row.ahead_of_shorter.interval,
                "better_at_equal_cost": row.at_equal_cost.value,
                "length": row.length,
                "why": "; ".join([*([found.why[arm]] if arm in found.why else []), *row.notes])
                or None,
                "command": command,
            }
        )
    return made
