"""The curves of a task."""

import numpy as np
from bench_records import bench_of, records_of

from attent_stream.bench.compare import compare
from attent_stream.bench.curves import curves, png


def test_the_longest_runs_and_all_lengths_are_drawn():
    bench, records = bench_of(), records_of()
    found = compare(bench, records)
    figure = curves(bench, records, found)
    frontier, equivalents, seconds, *_ = figure.axes
    assert [text.get_text() for text in figure.axes[5].get_legend().texts] == list(bench.arms)
    rows = [row for row in found.rows if row.arm == "ours"]
    line = frontier.containers[2].lines[0]
    assert np.allclose(line.get_xdata(), [row.cost for row in rows])
    assert np.allclose(line.get_ydata(), [row.quality.value for row in rows])
    assert [line.get_xdata().tolist() for line in seconds.lines] == [[100.0], [75.0], [82.5]]
    assert len(equivalents.lines) == 3
    assert png(figure).startswith(b"\x89PNG")
