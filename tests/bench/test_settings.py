"""A bench YAML, and mistakes in it."""

import pytest

from attent_stream.bench.command import main
from attent_stream.bench.settings import load_bench
from attent_stream.launch.config_check import ConfigError


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
        (good + "images: {images: 4}\n", "exactly one of text, images, chat, got text and images"),
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
