"""One page of HTML on what runs have chosen. It needs nothing from elsewhere."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from attent_stream.report.choices import Choices, SampleHistory, histories, sorted_by
from attent_stream.report.figure import curves, measures, svg
from attent_stream.report.inspect import summary
from attent_stream.report.metrics import Measured
from attent_stream.report.samples import SampleReader

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1300px;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}
td,th{padding:.3em .6em;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}
td.what,th.what{text-align:left;font-family:ui-monospace,monospace;font-size:13px;width:60%;
white-space:pre-wrap;overflow-wrap:anywhere}
th{cursor:pointer;position:sticky;top:0;background:#fff}
.kept{color:#a12c3d}.dropped{color:#5c6b73}svg{max-width:100%;height:auto}
input,select{font:inherit;margin-right:1em;padding:.2em}pre{background:#f6f6f6;padding:1em}
img{image-rendering:pixelated;min-width:64px;max-width:128px}
"""
# Texts reach the page by textContent only, so that nothing of a data set is taken for HTML.
SCRIPT = """
const data = JSON.parse(document.getElementById("samples").textContent);
const body = document.getElementById("rows");
const filters = ["run", "stream", "which", "search", "low", "high"];
let order = "rank", down = true;
for (const name of [...new Set(data.map(one => one.run))].sort())
  document.getElementById("run").append(new Option(name));
for (const name of [...new Set(data.map(one => one.stream))].sort())
  document.getElementById("stream").append(new Option(name));
function shown() {
  const value = id => document.getElementById(id).value;
  const words = value("search").toLowerCase(), low = parseFloat(value("low"));
  const high = parseFloat(value("high"));
  return data.filter(one =>
    (!value("run") || one.run === value("run")) &&
    (!value("stream") || one.stream === value("stream")) &&
    (value("which") !== "kept" || one.kept > 0) &&
    (value("which") !== "dropped" || one.kept < one.seen) &&
    (isNaN(low) || (one.rank !== null && one.rank >= low)) &&
    (isNaN(high) || (one.rank !== null && one.rank <= high)) &&
    (!words || one.text.toLowerCase().includes(words) || String(one.sample) === words));
}
function draw() {
  const rows = shown().sort((a, b) => {
    const x = a[order], y = b[order];
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
  });
  document.getElementById("count").textContent = rows.length + " of " + data.length + " samples";
  body.replaceChildren(...rows.slice(0, 200).map(one => {
    const row = document.createElement("tr");
    row.className = one.kept ? "kept" : "dropped";
    const number = (value, digits) => value === null ? "-" : value.toFixed(digits);
    const score = number(one.score, 4), rank = number(one.rank, 2);
    for (const text of [one.run, one.stream, one.sample, one.seen, one.kept, score, rank]) {
      const cell = row.insertCell();
      cell.textContent = text;
    }
    const what = row.insertCell();
    what.className = "what";
    if (one.image) {
      const image = document.createElement("img");
      image.src = one.image;
      what.append(image, " ");
    }
    what.append(document.createTextNode(one.text));
    return row;
  }));
}
// A link may choose what is shown: report.html#stream=web&which=dropped
for (const [id, value] of new URLSearchParams(location.hash.slice(1)))
  if (filters.includes(id)) document.getElementById(id).value = value;
for (const id of filters) document.getElementById(id).addEventListener("input", draw);
for (const head of document.querySelectorAll("th[data-key]"))
  head.addEventListener("click", () => {
    down = order === head.dataset.key ? !down : true;
    order = head.dataset.key;
    draw();
  });
draw();
"""
HEADS = ("run", "stream", "sample", "seen", "kept", "score", "rank")
_WIDTH = 600  # characters of a sample


def shown_samples(choices: Choices, each: int, seed: int = 17) -> list[SampleHistory]:
    """Samples to look at: of the highest and the lowest scores, the most often kept and dropped,
    and random kept and dropped ones, so many of each.
    """
    found = histories(choices)
    rng = np.random.default_rng(seed)
    wanted: dict[int, SampleHistory] = {}
    groups = [sorted_by(found, order) for order in ("highest", "lowest", "kept", "dropped")]
    for part in ([one for one in found if one.kept], [one for one in found if one.kept < one.seen]):
        groups.append([part[at] for at in rng.permutation(len(part))])
    for group in groups:
        wanted |= {one.sample: one for one in group[:each]}
    return sorted(wanted.values(), key=lambda one: one.sample)


def rows_of(
    name: str, choices: Choices, reader: SampleReader, found: Sequence[SampleHistory]
) -> list[dict[str, Any]]:
    """Samples as the page's script reads them."""
    rows = []
    for one in found:
        text, image = reader.shown(one.stream, one.sample, _WIDTH)
        rows.append(
            {
                "run": name,
                "stream": choices.streams[one.stream].name,
                "sample": one.sample,
                "seen": one.seen,
                "kept": one.kept,
                "score": one.score if np.isfinite(one.score) else None,
                "rank": one.rank if np.isfinite(one.rank) else None,
                "text": text,
                "image": None if image is None else _data_url(image),
            }
        )
    return rows


def page(
    runs: Mapping[str, Choices],
    measured: Mapping[str, Measured],
    samples: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        runs: The choices of each run by its name; none of a run without AtteNT.
        measured: What each run has measured, by its name.
        samples: Rows of ``rows_of``.
    """
    told = "".join(
        f"<h3>{escape(name)}</h3>{_summary(runs.get(name))}{_facts(one)}"
        for name, one in measured.items()
    )
    figure = measures(dict(measured))
    over = "" if figure is None else f"<h2>What was measured</h2>{svg(figure)}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What was taught</title>
<style>{STYLE}</style></head><body>
<h1>What was taught</h1>
<p>Of each window of the stream, AtteNT keeps some samples and drops the others. This page shows
what the runs' <code>choice_log</code> holds: of large windows a part of the samples.</p>
{told}
{over}
{_chosen(runs, samples) if runs else ""}
</body></html>
"""


def _chosen(runs: Mapping[str, Choices], samples: Sequence[Mapping[str, Any]]) -> str:
    """What was chosen, and samples to look at."""
    # "</" would end the element.
    data = json.dumps(list(samples)).replace("<", "\\u003c")
    heads = "".join(f'<th data-key="{name}">{name}</th>' for name in HEADS)
    return f"""<h2>What was chosen</h2>
{svg(curves(dict(runs)))}
<h2>Samples</h2>
<p>The highest and the lowest scores of their windows, the most often kept and dropped samples, and
some at random. The rank is the share of a window's other scores that are lower: scores fall while a
model learns. Samples that were ever kept are red. A click on a heading sorts.</p>
<p><select id="run"><option value="">all runs</option></select>
<select id="stream"><option value="">all streams</option></select>
<select id="which"><option value="">kept and dropped</option><option value="kept">ever kept</option>
<option value="dropped">ever dropped</option></select>
<input id="search" placeholder="text or sample">
rank from <input id="low" size="6"> to <input id="high" size="6"> <span id="count"></span></p>
<table><thead><tr>{heads}<th class="what">what</th></tr></thead><tbody id="rows"></tbody></table>
<script id="samples" type="application/json">{data}</script>
<script>{SCRIPT}</script>"""


def _summary(choices: Choices | None) -> str:
    return "" if choices is None else f"<pre>{escape(summary(choices))}</pre>"


def _facts(measured: Measured) -> str:
    """What a run is, as a table to open."""
    if not measured.run:
        return ""
    rows = "".join(
        f'<tr><td class="what">{escape(str(name))}</td><td class="what">{escape(_text(value))}</td>'
        "</tr>"
        for name, value in measured.run.items()
    )
    does = escape(str(measured.run.get("does", "")))
    by = "AtteNT: " if "attent" in measured.run else ""
    return (
        f"<p>{by}{does}.</p>"
        f"<details><summary>What the run is</summary><table>{rows}</table></details>"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _data_url(image: bytes) -> str:
    kind = "png" if image[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
