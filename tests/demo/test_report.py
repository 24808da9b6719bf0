"""The demo's report on made-up results: every number in it can be worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.demo.report import (
    ArmResult,
    Point,
    ScoredWindow,
    clock,
    comparison,
    json_line,
    picture,
    table,
)


def make_window(batch: int, seed: int, size: int = 64) -> ScoredWindow:
    scores = np.random.default_rng([seed, batch]).normal(1.0, 0.1, size)
    return ScoredWindow(batch=batch, scores=scores, kept=scores > np.median(scores))


def make_result(
    name: str, losses, seconds=1.0, candidates=0, teaching=0.0, windows=()
) -> ArmResult:
    points = [
        Point(batch=10 * i, tokens=10_000 * i, seconds=seconds * i / (len(losses) - 1), loss=loss)
        for i, loss in enumerate(losses)
    ]
    return ArmResult(
        name=name,
        points=tuple(points),
        candidates=candidates,
        teaching_seconds=teaching,
        windows=tuple(windows),
        settings={"seed": 17},
    )


@pytest.fixture
def results():
    windows = [make_window(batch, 0) for batch in range(10, 30, 2)]
    return [
        make_result("uniform", [8.3, 6.5, 5.25], seconds=40.0),
        make_result("random", [8.3, 6.5, 5.25], seconds=42.0),
        make_result(
            "taught",
            [8.3, 6.4, 5.125],
            seconds=80.0,
            candidates=4096,
            teaching=20.0,
            windows=windows,
        ),
    ]


def test_table(results):
    lines = table(results).splitlines()
    assert len({len(line) for line in lines}) == 1  # columns are aligned
    cells = [line.split("  ") for line in lines[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert cells == [
        ["uniform", "5.2500", "20,000", "0", "40.0 s", "0.0 %"],
        ["random", "5.2500", "20,000", "0", "42.0 s", "0.0 %"],
        ["taught", "5.1250", "20,000", "4,096", "1 min 20 s", "25.0 %"],
    ]


def test_comparison(results):
    first, second = comparison(results).splitlines()
    assert (
        first == "random against uniform, at equal trained tokens: held-out loss level, "
        "1.05x the wall time."
    )
    assert second == (
        "taught against uniform, at equal trained tokens: held-out loss 0.1250 nats a token lower, "
        "2.00x the wall time."
    )
    worse = [results[0], make_result("taught", [8.3, 5.5], seconds=20.0)]
    assert "0.2500 nats a token higher, 0.50x" in comparison(worse)
    assert comparison(results[1:]) == "" == comparison(results[:1])


@given(st.floats(0, 1e6))
def test_clock_is_within_its_rounding(seconds):
    text = clock(seconds)
    numbers = [float(word) for word in text.split() if word not in ("min", "s")]
    value = sum(n * scale for n, scale in zip(reversed(numbers), (1, 60), strict=False))
    assert abs(value - seconds) <= (0.5 if "min" in text else 0.05) + 1e-9
    assert numbers[-1] < 60


def test_json_line(results):
    text = json_line(results[2])
    assert "\n" not in text
    record = json.loads(text)
    assert (record["arm"], record["held_out_loss"], record["tokens_trained"]) == (
        "taught",
        5.125,
        20_000,
    )
    assert (record["candidates_scored"], record["teaching_share"]) == (4096, 0.25)
    assert [p["loss"] for p in record["curve"]] == [8.3, 6.4, 5.125]
    window = results[2].windows[0]
    expected = np.quantile(window.scores[window.kept], (0.1, 0.5, 0.9))
    np.testing.assert_allclose(record["windows"][0]["kept"], expected, atol=1e-5)
    assert record["settings"] == {"seed": 17}


def test_json_line_of_a_run_that_diverged():
    nothing = ScoredWindow(
        batch=3, scores=np.full(4, np.nan), kept=np.array([True, True, False, False])
    )
    record = json.loads(
        json_line(make_result("taught", [8.3, float("nan")], windows=[nothing])),
        parse_constant=pytest.fail,
    )
    assert record["held_out_loss"] is None
    assert record["windows"][0] == {"batch": 3, "kept": None, "dropped": None}


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


def test_an_arm_needs_an_evaluation():
    with pytest.raises(ValueError, match="arm 'taught' needs at least one evaluation"):
        ArmResult(
            name="taught", points=(), candidates=0, teaching_seconds=0, windows=(), settings={}
        )
