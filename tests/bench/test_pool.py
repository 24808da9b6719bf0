"""Runs in processes of their own give what runs in one process give."""

from multiprocessing import active_children

import pytest
from failing_runs import Endless, Failing
from together import until
from toy_benches import TEXT

from attent_stream.bench.command import main
from attent_stream.bench.pool import trained
from attent_stream.bench.record import read_records
from attent_stream.bench.runs import RESULTS, BenchRun
from attent_stream.bench.settings import load_bench


@pytest.mark.slow
@pytest.mark.processes
def test_two_at_a_time_train_as_one_after_the_other(tmp_path, capfd):
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    alone = BenchRun(load_bench(path), None, tmp_path / "alone").run()
    assert main([str(path), "--out", str(tmp_path / "out"), "--jobs", "2"]) == 0
    records = {record.key: record for record in read_records(tmp_path / "out" / "tiny" / RESULTS)}
    assert [records[r.key].last.measures for r in alone] == [r.last.measures for r in alone]
    said = capfd.readouterr().out
    assert "plain 0.4 seed 1 lr 0.002: begins, 3 steps" in said  # by the other process


def test_jobs_must_be_some(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    assert main([str(path), "--out", str(tmp_path / "out"), "--jobs", "0"]) == 2
    assert "--jobs: expected at least 1, got 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.processes
def test_a_run_that_fails_does_not_lose_the_others(tmp_path):
    jobs = [(name, name, name) for name in ("long", "fails", *map(str, range(20)))]
    found = []
    with pytest.raises(ValueError, match="this run cannot"):
        found.extend(trained(Failing(tmp_path), jobs, 2))
    assert "long" in found and len(found) < 20


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(120)
def test_an_interrupted_bench_does_not_wait_for_its_runs(tmp_path):
    before = set(active_children())
    jobs = [(name, name, name) for name in ("endless", "short", "endless")]
    with pytest.raises(KeyboardInterrupt):
        for found in trained(Endless(tmp_path), jobs, 2):
            assert found == "short"
            raise KeyboardInterrupt
    assert until(lambda: set(active_children()) <= before, 30)
