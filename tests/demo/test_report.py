"""The report of made-up results: every number can be worked out by hand."""

import json

import numpy as np
import pytest
from demo_results import make_result
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.demo.report import (
    ArmResult,
    ScoredWindow,
    aligned,
    clock,
    comparison,
    json_line,
    table,
)


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


def test_an_arm_needs_an_evaluation():
    with pytest.raises(ValueError, match="arm 'taught' needs at least one evaluation"):
        ArmResult(
            name="taught", points=(), candidates=0, teaching_seconds=0, windows=(), settings={}
        )


def test_aligned_columns():
    assert aligned([("arm", "x"), ("a", "10.5")]) == "arm     x\n---  ----\na    10.5"
