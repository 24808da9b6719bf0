"""The page, its table and the rows of quality.json."""

import json

import pytest
from bench_records import bench_of, records_of

from attent_stream.bench.compare import NOT_REACHED, compare
from attent_stream.bench.intervals import Estimate
from attent_stream.bench.page import (
    cells,
    heading,
    number,
    page,
    percent,
    quality_rows,
    section,
    table,
)


def test_what_is_told_is_escaped_and_whole():
    bench, records = bench_of(title='<script>"x"'), records_of()
    found = compare(bench, records)
    html = page([section(bench, records, found, b"png")])
    assert "<script>" not in html and "t&lt;b&gt;" in html and "http" not in html
    assert len({len(row) for row in cells(bench, found)}) == 1 and "ours" in table(bench, found)
    rows = quality_rows(bench, records, found, "command")
    assert [row["arm"] for row in rows] == ["random", "ours"]
    assert (
        rows[0]["time_saved_vs_plain"] is None
        and NOT_REACHED in rows[0]["why"]
        and rows[1]["seeds"] == 3
    )
    # At 0.75 it is better than all of plain's
    assert rows[1]["length"] == 0.5 and rows[1]["ahead_of_shorter"] is not None
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("estimate", "shown", "share"),
    [
        (Estimate(value=None), "-", "-"),
        (Estimate(value=0.5), "0.5000", "+50.0%"),
        (
            Estimate(value=-0.25, low=-0.5, high=0.0),
            "-0.2500 [-0.5000, 0.0000]",
            "-25.0% [-50.0, +0.0]",
        ),
    ],
)
def test_estimates_are_shown_with_their_interval(estimate, shown, share):
    assert (number(estimate), percent(estimate)) == (shown, share)


def test_columns_are_aligned_and_the_heading_names_machine_and_rate():
    bench, records = bench_of(), records_of()
    found = compare(bench, records)
    assert len({len(line) for line in table(bench, found).splitlines()}) == 1
    told = heading(bench, records, found)
    assert "2 CPU cores" in told and "peak learning rate 0.001" in told and "3 seed(s)" in told
