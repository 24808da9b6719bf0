"""The bench's arithmetic against brute force and known answers; nothing is trained."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.bench.command import main, update_quality
from attent_stream.bench.compare import AT_LEAST, NOT_REACHED, compare
from attent_stream.bench.documents import clean, read_jsonl, spoilt
from attent_stream.bench.flops import Shape
from attent_stream.bench.frontier import BETTER, INSIDE, WORSE, frontier
from attent_stream.bench.intervals import bootstrap, resamples
from attent_stream.bench.meter import Meter
from attent_stream.bench.page import cells, page, quality_rows, section, table
from attent_stream.bench.pictures import mislabelled
from attent_stream.bench.plan import arm_runs, sweep
from attent_stream.bench.record import Point, Record, append, read_records
from attent_stream.bench.settings import ArmConfig, BenchConfig, TextData, load_bench
from attent_stream.launch.config_check import ConfigError


def _bench(**given):
    arms = {
        "plain": ArmConfig(lengths=[0.5, 1.0]),
        "random": ArmConfig(lengths=[0.5, 0.75]),
        "ours": ArmConfig(lengths=[0.5, 0.75]),
    }
    settings = {
        "task": "t<b>",
        "base": {},
        "steps": 100,
        "arms": arms,
        "text": TextData(streams={"a": 1.0}),
    }
    return BenchConfig(**{**settings, "seeds": [1, 2, 3], **given})


def _record(arm, length, seed, loss, steps, teaching=0.0, **given):
    point = Point(
        step=steps,
        tokens=steps * 10,
        candidates=0,
        seconds=steps + teaching,
        cpu_seconds=steps + teaching,
        teaching_seconds=teaching,
        flops=1.0,
        measures={"a": loss - 0.1, "b": loss + 0.1},
    )
    return Record(
        key=f"{arm}-{length}-{seed}",
        task="t",
        arm=arm,
        length=length,
        seed=seed,
        lr=1e-3,
        role="arm",
        hardware="2 CPU cores",
        date="2026-11-25",
        points=(point,),
        **given,
    )


def _records(ours=(3.2, 2.9), noise=(0.0, 0.01, 0.05), sign=1):
    found = []
    for seed, e in zip((1, 2, 3), noise, strict=True):
        found += [
            _record("plain", 0.5, seed, sign * (4.0 + e), 50),
            _record("plain", 1.0, seed, sign * (3.0 + e), 100),
        ]
        found += [
            _record("random", 0.5, seed, sign * (3.8 + e), 50),
            _record("random", 0.75, seed, sign * (3.4 + e), 75),
        ]
        found += [
            _record("ours", 0.5, seed, sign * (ours[0] + e), 50, teaching=5.0),
            _record("ours", 0.75, seed, sign * (ours[1] + e), 75, teaching=7.5),
        ]
    return found


def test_a_frontier_interpolates_between_its_lengths_and_says_so_beyond_them():
    found = frontier([10, 40, 20], [4.0, 2.0, 3.0])
    assert found.cost_at(3.5).value == pytest.approx(15) and found.cost_at(
        2.25
    ).value == pytest.approx(35)
    assert found.cost_at(4.0).value == 10 and found.cost_at(2.0).value == 40
    assert (found.cost_at(4.001).value, found.cost_at(4.001).where) == (None, WORSE)
    assert (found.cost_at(1.999).value, found.cost_at(1.999).where) == (None, BETTER)
    assert found.loss_at(30).value == pytest.approx(2.5) and found.loss_at(9).value is None
    assert found.loss_at(41).value is None and found.loss_at(20).where == INSIDE
    with pytest.raises(ValueError, match="finite"):
        frontier([1.0], [float("nan")])


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 20)),
        min_size=1,
        max_size=6,
        unique_by=lambda p: p[0],
    )
)
def test_a_frontier_is_the_least_squares_fit_that_never_rises(points):
    costs, losses = np.array(sorted(points), float).T
    found = frontier(*zip(*points, strict=True))
    assert (np.diff(found.losses) <= 1e-9).all() and (found.costs == costs).all()
    # Brute force: the best way to cut the points into runs of equal value, values falling.
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(costs) - 1):
        parts = np.split(losses, np.flatnonzero(cuts) + 1)
        means = [part.mean() for part in parts]
        if all(a >= b for a, b in itertools.pairwise(means)):
            best = min(best, sum(((part - part.mean()) ** 2).sum() for part in parts))
    assert ((found.losses - losses) ** 2).sum() == pytest.approx(best, abs=1e-9)
    for loss in losses:
        read = found.cost_at(loss)
        assert read.value is None or np.interp(
            read.value, found.costs, found.losses
        ) == pytest.approx(loss)


def test_intervals_are_those_of_all_resamples():
    values = np.array([1.0, 2.0, 6.0])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    found = bootstrap(lambda seeds: float(values[list(seeds)].mean()), 3)
    assert found.value == 3 and found.interval == pytest.approx(
        np.quantile(means, [0.025, 0.975]).tolist()
    )
    assert bootstrap(lambda seeds: 1.0, 2).interval is None  # two seeds say nothing of their spread
    assert resamples(3, np.random.default_rng(0)).shape == (27, 3)
    rarely = bootstrap(lambda seeds: None if list(seeds).count(0) >= 2 else 1.0, 3)
    assert (
        rarely.value == 1 and rarely.interval is None and rarely.undefined == pytest.approx(7 / 27)
    )
    many = np.random.default_rng(1).normal(size=40)
    wide = bootstrap(lambda seeds: float(many[list(seeds)].mean()), 40)
    half = 1.96 * many.std() / np.sqrt(40)
    assert wide.low == pytest.approx(many.mean() - half, abs=0.05)
    assert wide.high == pytest.approx(many.mean() + half, abs=0.05)


@pytest.mark.parametrize("higher", [False, True])
def test_a_comparison_gives_known_answers(higher):
    bench = _bench(higher=higher)
    found = compare(bench, _records(sign=-1 if higher else 1))
    short, long = (row for row in found.rows if row.arm == "ours")
    # 50 steps and 10% teaching cost 55; plain reaches 3.2 at 90 steps.
    assert short.cost == pytest.approx(55) and short.ahead_of_shorter.value == pytest.approx(
        1 - 55 / 90
    )
    # The seeds' noise is common to all arms
    assert short.ahead_of_shorter.low == pytest.approx(1 - 55 / 90)
    # 55 s of the processor for 50 steps, 5 of them spent teaching
    assert short.step_ratio == pytest.approx(1)
    assert short.at_equal_cost.value == pytest.approx(3.9 - 3.2)
    assert short.against_random.value == pytest.approx(0.6)
    assert (
        short.ahead_of_random.value is None and "better than all lengths of random" in short.notes
    )
    assert long.ahead_of_shorter.value is None
    # Plain's 3.0 lies two thirds of the way from 3.2 at 55 to 2.9 at 82.5.
    assert found.saved["ours"].value == pytest.approx(1 - (55 + 27.5 * 2 / 3) / 100)
    assert found.saved["random"].value is None and found.why["random"] == NOT_REACHED
    assert (
        compare(bench, _records(ours=(2.9, 2.8), sign=-1 if higher else 1)).why["ours"] == AT_LEAST
    )


def test_costs_are_counted_as_the_bench_says():
    records = _records()
    arms = {**_bench().arms, "ours": ArmConfig(lengths=[0.5, 0.75], cost="cpu")}
    rows = {(r.arm, r.length): r.cost for r in compare(_bench(arms=arms), records).rows}
    assert rows["ours", 0.5] == pytest.approx(55) and rows["plain", 1.0] == 100
    rows = {(r.arm, r.length): r.cost for r in compare(_bench(cost="seconds"), records).rows}
    assert rows["ours", 0.75] == pytest.approx(82.5)


def test_only_seeds_that_every_arm_has_are_compared():
    records = [r for r in _records() if (r.arm, r.seed) != ("ours", 2)]
    assert compare(_bench(), records).seeds == (1, 3)
    with pytest.raises(ValueError, match="no seed"):
        compare(_bench(), [r for r in records if r.arm != "random"])
    diverged = [
        *(r for r in _records() if r.arm != "ours"),
        *(_record("ours", 0.5, s, np.nan, 50) for s in (1, 2, 3)),
    ]
    with pytest.raises(ValueError, match="diverged: ours 0.5 seed 1"):
        compare(_bench(), diverged)


def test_what_is_told_is_escaped_and_whole():
    bench, records = _bench(title='<script>"x"'), _records()
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


def test_records_survive_a_line_cut_short(tmp_path):
    path, (first, second, *_) = tmp_path / "runs.jsonl", _records()
    append(path, first)
    append(path, second)
    whole = path.read_bytes()
    for cut in (1, 10, len(second.line())):
        path.write_bytes(whole[:-cut])
        assert read_records(path)[0] == first
        append(path, second)
        assert read_records(path)[-1] == second and first in read_records(path)
    assert read_records(tmp_path / "none") == []


def test_quality_json_keeps_other_tasks_and_machines(tmp_path):
    path = tmp_path / "quality.json"
    old = [
        {"task": "a", "hardware": "x", "v": 1},
        {"task": "a", "hardware": "y"},
        {"task": "b", "hardware": "x"},
    ]
    update_quality(path, old)
    update_quality(path, [{"task": "a", "hardware": "x", "v": 2}])
    assert json.loads(path.read_text()) == [old[1], old[2], {"task": "a", "hardware": "x", "v": 2}]


def test_flops_are_six_a_weight_and_token_and_attention():
    shape = Shape(weights=1000, layers=2, width=8, positions=16)
    assert shape.run(10, 0) == 10 * (6 * 1000 + 12 * 2 * 8 * 16)
    assert shape.run(0, 30) == pytest.approx(shape.run(10, 0))  # a forward is a third


def test_small_images_are_counted_as_the_patches_they_have():
    shape = Shape(weights=1000, layers=2, width=8, positions=17)  # of 32 pixels in patches of 8
    logger = SimpleNamespace(data={"attent/candidates": [(0, 5)]})
    meter = Meter("Accuracy", logger, shape, side=32)
    state = SimpleNamespace(timestamp=SimpleNamespace(batch=3), algorithms=[], eval_metrics={})
    for side, samples in ((16, 4), (24, 4), (32, 2)):
        state.batch = (torch.zeros(samples, 3, side, side), torch.zeros(samples))
        meter.batch_start(state, None)
    meter.eval_after_all(state, None)
    (point,) = meter.points
    patches = {5: 4 * 5, 10: 4 * 10, 17: 2 * 17}  # of a sample -> of all
    assert point.tokens == sum(patches.values())
    lessons = sum(
        tokens * (6 * 1000 + 12 * 2 * 8 * positions) for positions, tokens in patches.items()
    )
    assert point.flops == pytest.approx(lessons + shape.run(0, 5 * 17))


def test_runs_go_seed_by_seed_and_plain_finds_the_learning_rate():
    bench = _bench(learning_rates=[1e-3, 2e-3])
    assert [run.lr for run in sweep(bench)] == [1e-3, 2e-3] and sweep(
        _bench(learning_rates=[1e-3])
    ) == []
    runs = arm_runs(bench, 2e-3)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs) and len(runs) == 18
    assert {run.lr for run in runs} == {2e-3}


def test_planted_noise_has_its_share_and_copies_go():
    rng = np.random.default_rng(3)
    documents = [
        " ".join(f"w{rng.integers(500)}" for _ in range(rng.integers(40, 200))) for _ in range(200)
    ]
    out = list(spoilt(documents, 0.2, np.random.default_rng(0)))
    good = set(documents)
    planted = sum(len(text) for text in out if text not in good)
    assert planted / sum(map(len, out)) == pytest.approx(0.2, abs=0.01)
    assert [text for text in out if text in good] == documents
    copies = [documents[0], "Another start. " + documents[0], "short", documents[1]]
    assert list(clean(copies)) == [documents[0], documents[1]]


def test_documents_are_drawn_from_all_of_a_file(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    texts = [f"{i:03d}" + "x" * 97 for i in range(200)]
    path.write_bytes(
        zstandard.compress("".join(json.dumps({"text": t}) + "\n" for t in texts).encode())
    )
    drawn = read_jsonl(path, 0.005, np.random.default_rng(0))
    assert len(drawn) == 50 and set(drawn) <= set(texts) and max(drawn) > texts[150]
    assert drawn == read_jsonl(path, 0.005, np.random.default_rng(0))
    assert all(
        len(text) == 10 for text in read_jsonl(path, 0.001, np.random.default_rng(0), longest=10)
    )


def test_wrong_labels_have_their_share():
    images = [("abc"[i % 3], bytes([i % 256])) for i in range(300)]
    out = mislabelled(images, 0.1, np.random.default_rng(0))
    assert sum(a[0] != b[0] for a, b in zip(images, out, strict=True)) == 30
    assert [data for _, data in out] == [data for _, data in images]


def test_a_task_changes_keys_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("a: {b: 1, c: '${d}'}\nd: 2\n")
    path = tmp_path / "b.yaml"
    rest = (
        "task: t\nsteps: 10\ntext: {streams: {a: 1}}\narms: {plain: {lengths: "
        "[1.0]}}\nbase_changes: {a: {b: 3}, e: [4]}\n"
    )
    for base in ("base.yaml", "{a: {b: 1, c: 2}, d: 2}"):
        path.write_text(rest + f"base: {base}\n")
        assert load_bench(path).base == {"a": {"b": 3, "c": 2}, "d": 2, "e": [4]}


def test_mistakes_end_in_a_sentence(tmp_path, capsys):
    good = (
        "task: t\nbase: {}\nsteps: 10\ntext: {streams: {a: 1}}\narms: {plain: {lengths: [1.0]}}\n"
    )
    path = tmp_path / "b.yaml"
    path.write_text(good)
    assert load_bench(path).arms["plain"].lengths == [1.0]
    for bad, told in (
        (good.replace("lengths: [1.0]", "lengths: [0.5]"), "longest length is 1"),
        (good.replace("steps", "stepz"), "stepz"),
        (good + "images: {images: 4}\n", "exactly one of text and images"),
        (good.replace("base: {}", "base: none.yaml"), "none.yaml"),
        (good + "base_changes: 8\n", "base_changes: expected a mapping"),
        (good.replace("{a: 1}", "{a: 1}, noise: 1.5"), "noise"),
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError, match=told):
            load_bench(path)
    assert main([str(path)]) == 2 and "noise" in capsys.readouterr().err
    path.write_text(good)
    assert main([str(path), "--data", str(tmp_path / "no")]) == 2
