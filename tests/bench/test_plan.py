"""The runs of a bench, and their keys."""

from pathlib import Path

from bench_records import bench_of

from attent_stream.bench.plan import Run, arm_runs, key, steps_of, sweep, tree
from attent_stream.bench.prepare import Prepared


def test_runs_go_seed_by_seed_and_plain_finds_the_learning_rate():
    bench = bench_of(learning_rates=[1e-3, 2e-3])
    assert [run.lr for run in sweep(bench)] == [1e-3, 2e-3] and sweep(
        bench_of(learning_rates=[1e-3])
    ) == []
    runs = arm_runs(bench, 2e-3)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs) and len(runs) == 18
    assert {run.lr for run in runs} == {2e-3}


def test_a_key_changes_with_what_a_run_depends_on_and_not_with_folders(tmp_path):
    bench, run = bench_of(), Run(arm="ours", length=0.5, seed=1, lr=1e-3)

    def data(folder: Path, samples: int = 100) -> Prepared:
        return Prepared(folder=folder / "d", train={}, held_out={}, samples=samples, source="s")

    same = key(bench, run, data(tmp_path), None)
    assert key(bench, run, data(tmp_path / "moved"), None) == same
    others = [
        key(bench, run, data(tmp_path, 101), None),
        key(bench, run, data(tmp_path), "start"),
        key(bench_of(steps=300), run, data(tmp_path), None),
        *(
            key(bench, Run(**{**vars(run), **change}), data(tmp_path), None)
            for change in ({"seed": 2}, {"lr": 2e-3}, {"role": "sweep"}, {"length": 0.75})
        ),
    ]
    assert len({same, *others}) == len(others) + 1


def test_a_tree_leaves_the_base_alone(tmp_path):
    base = {"optimizer": {"name": "adamw"}, "model": {"name": "hf_causal_lm"}}
    bench = bench_of(base=base)
    data = Prepared(
        folder=tmp_path, train={"a": tmp_path}, held_out={"a": tmp_path}, samples=1, source="s"
    )
    run = Run(arm="plain", length=0.001, seed=7, lr=0.5)
    made = tree(bench, run, data, tmp_path / "cache", tmp_path / "start")
    assert steps_of(bench, run.length) == 1 and made["max_duration"] == "1ba"
    assert (made["seed"], made["optimizer"]) == (7, {"name": "adamw", "lr": 0.5})
    assert made["model"] == {"name": "hf_causal_lm", "pretrained": str(tmp_path / "start")}
    assert base == {"optimizer": {"name": "adamw"}, "model": {"name": "hf_causal_lm"}}
