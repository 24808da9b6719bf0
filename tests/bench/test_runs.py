"""A whole bench, tiny: stopped, gone on with, reported; its runs the same each time."""

import json
from dataclasses import asdict

import pytest
from toy_benches import PICTURES, TEXT

from attent_stream.bench.command import main
from attent_stream.bench.record import read_records
from attent_stream.bench.runs import RESULTS, BenchRun
from attent_stream.bench.settings import load_bench


def test_a_bench_that_was_stopped_goes_on_and_repeats_no_run(tmp_path):
    path, out, said = tmp_path / "tiny.yaml", tmp_path / "out", []
    path.write_text(TEXT)

    def stop(line):
        said.append(line)
        if "plain 1 seed 1: LanguageCrossEntropy" in line:
            raise KeyboardInterrupt  # after two runs of the sweep and one arm's

    with pytest.raises(KeyboardInterrupt):
        BenchRun(load_bench(path), None, out / "tiny", say=stop).run()
    results = out / "tiny" / RESULTS
    before = read_records(results)
    assert [(r.role, r.arm, r.length) for r in before] == [("sweep", "plain", 0.4)] * 2 + [
        ("arm", "plain", 1)
    ]
    # Killed while it wrote its last line: that run is made again, with the very same numbers.
    results.write_bytes(results.read_bytes()[:-20])
    (out / "tiny" / "cache" / "left").mkdir(parents=True)
    assert main([str(path), "--out", str(out), "--results", str(tmp_path / "quality.json")]) == 0
    after = read_records(results)
    assert after[:2] == before[:2] and len(after) == 5
    assert [asdict(p)["measures"] for p in after[2].points] == [
        asdict(p)["measures"] for p in before[2].points
    ]
    assert {r.lr for r in after[2:]} == {min(before[:2], key=lambda r: r.last.quality).lr}
    soft = after[-1].last
    assert (
        soft.candidates > 0 and soft.teaching_seconds > 0 and soft.step_equivalents > soft.step == 8
    )
    assert soft.flops > after[2].last.flops and after[2].last.step_equivalents == 8
    assert not (out / "tiny" / "cache" / "left").exists()
    assert [row["arm"] for row in json.loads((tmp_path / "quality.json").read_text())] == ["soft"]
    assert (out / "tiny" / "curves.png").stat().st_size > 0 and "tiny" in (
        out / "bench.html"
    ).read_text()
    # Nothing is left to run; another seed would be.
    whole = results.read_bytes()
    assert main([str(path), "--out", str(out), "--report"]) == 0 and results.read_bytes() == whole


@pytest.mark.slow
def test_images_and_composers_own_selection(tmp_path):
    path = tmp_path / "shapes.yaml"
    path.write_text(PICTURES)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    records = read_records(tmp_path / "out" / "shapes" / RESULTS)
    assert [r.arm for r in records] == ["plain", "plain", "selective_backprop"]
    assert all(0 <= r.last.quality <= 1 and r.last.cpu_seconds > 0 for r in records)
    assert "drawn shapes" in records[0].note


@pytest.mark.slow
def test_fine_tuning_starts_from_weights_that_are_trained_once(tmp_path):
    path, out, said = tmp_path / "tuned.yaml", tmp_path / "out", []
    text = "{streams: {stdlib: 0.05}, held_out: 0.01, vocab_size: 300, seq_len: 32}"
    tuned = TEXT.replace(
        "arms:", f"pretrain: {{data: {text}, steps: 40, lr: 1.0e-2}}\narms:"
    ).replace("evals: 2", "evals: 8")
    path.write_text(tuned.replace("task: tiny", "task: tuned"))
    started = BenchRun(load_bench(path), None, out, say=said.append).run()
    assert sum("pretraining" in line for line in said) == 1
    again = BenchRun(load_bench(path), None, out, say=said.append).run()
    assert again == started and sum("pretraining" in line for line in said) == 1
    path.write_text(TEXT)
    fresh = BenchRun(load_bench(path), None, tmp_path / "fresh", say=said.append).run()
    assert max(r.points[0].quality for r in started) < min(r.points[0].quality for r in fresh) - 0.1
