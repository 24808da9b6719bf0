"""The picture of made-up results."""

import numpy as np
from demo_results import make_result, make_window

from attent_stream.demo.picture import picture


def test_picture(results, tmp_path):
    figure = picture(results, "A title", "score")
    time, tokens, early, late = figure.axes
    assert [line.get_xdata().tolist() for line in time.lines] == [
        [20.0, 40.0],
        [21.0, 42.0],
        [40.0, 80.0],
    ]
    assert [line.get_xdata().tolist() for line in tokens.lines] == [[10_000, 20_000]] * 3
    assert [line.get_ydata().tolist() for line in tokens.lines] == [
        [6.5, 5.25],
        [6.5, 5.25],
        [6.4, 5.125],
    ]
    assert all(
        "second" in time.get_xlabel() and "nats" in axes.get_ylabel() for axes in (time, tokens)
    )
    assert "10 to 12" in early.get_title() and "26 to 28" in late.get_title()
    assert late.get_xlabel() == "score"
    for axes in (early, late):
        assert [patch.get_label() for patch in axes.patches] == ["dropped", "kept"]
    path = tmp_path / "picture.png"
    figure.savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_histograms_hold_every_finite_score(results):
    window = make_window(5, 1)
    window.scores[:3] = np.nan
    arm = make_result("taught", [8.3, 6.0], windows=[window])
    early = picture([arm], "A title", "score").axes[2]
    areas = [np.diff(p.get_xy()[:, 0]) @ p.get_xy()[:-1, 1] for p in early.patches]
    width = np.unique(np.round(np.diff(np.unique(early.patches[0].get_xy()[:, 0])), 12))
    counts = np.round(np.array(areas) / width[0])
    kept = window.kept[3:].sum()
    assert counts.tolist() == [61 - kept, kept]


def test_picture_without_scored_windows(results):
    late = picture(results[:2], "A title", "score").axes[3]
    assert [text.get_text() for text in late.texts] == ["no window was chosen by score"]
