"""The command's quality.json."""

import json

from attent_stream.bench.command import update_quality


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
