"""Records of runs in a file."""

import json
from dataclasses import replace

import pytest
from bench_records import records_of

from attent_stream.bench.record import Point, append, read_records, record_of


def test_records_survive_a_line_cut_short(tmp_path):
    path, (first, second, *_) = tmp_path / "runs.jsonl", records_of()
    append(path, first)
    append(path, second)
    whole = path.read_bytes()
    for cut in (1, 10, len(second.line())):
        path.write_bytes(whole[:-cut])
        assert read_records(path)[0] == first
        append(path, second)
        assert read_records(path)[-1] == second and first in read_records(path)
    assert read_records(tmp_path / "none") == []


def test_a_line_of_json_gives_the_record_back():
    first = records_of()[0]
    assert record_of(json.loads(first.line())) == first and "\n" not in first.line()
    with pytest.raises(TypeError):
        record_of({**json.loads(first.line()), "other": 1})


def test_teaching_is_counted_in_steps_of_the_same_run():
    given = {"tokens": 0, "candidates": 0, "cpu_seconds": 0.0, "flops": 0.0}
    point = Point(step=50, seconds=60.0, teaching_seconds=10.0, measures={"a": 1, "b": 2}, **given)
    assert point.step_equivalents == pytest.approx(60) and point.quality == 1.5


def test_the_labels_of_the_quality_may_be_chosen_later():
    first = records_of()[0]
    every = {**first.last.measures, "other": 9.0}
    points = tuple(replace(point, measures=every) for point in first.points)
    record = replace(first, points=points)
    one = record.measured_by(["other"])
    assert one.last.quality == 9.0 and one.last.beside == first.last.measures
    assert one.measured_by(None).last.measures == every
