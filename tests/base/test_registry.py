"""Plug-ins by name: known ones, those on trial, and a user's own."""

import math
import sys

import pytest

from attent_stream import experimental
from attent_stream.base.registry import Registry, imported, nearest


@pytest.fixture
def colours(monkeypatch):
    on_trial = {"mauve": "math:pi", "lost": "no_such_module:x"}
    monkeypatch.setitem(experimental.NAMES, "colour", on_trial)
    return Registry("colour", {"red": 1, "green": 2})


def test_known_ones_come_first(colours):
    assert colours.names == ["red", "green", "mauve", "lost"]
    assert colours.get("red") == 1
    colours.known["mauve"] = 3
    assert colours.get("mauve") == 3


def test_those_on_trial_are_imported_when_asked_for(colours):
    assert colours.get("mauve") == math.pi
    assert "lost" in colours  # its module is not looked for
    with pytest.raises(ValueError, match="colour: 'no_such_module:x' cannot be imported: No mod"):
        colours.get("lost")


def test_those_on_trial_are_of_one_kind(colours):
    assert Registry("shape", {"round": 1}).names == ["round"]
    assert "mauve" not in Registry("shape", {"round": 1})


def test_a_users_own(colours, tmp_path, monkeypatch):
    (tmp_path / "painted_by_user.py").write_text("blue = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "painted_by_user:blue" not in colours
    assert "painted_by_user" not in sys.modules
    assert colours.get("painted_by_user:blue") == 7
    monkeypatch.delitem(sys.modules, "painted_by_user")


def test_a_name_need_not_be_text(colours):
    assert 3 not in colours and ["red"] not in colours and None not in colours
    with pytest.raises(ValueError, match="colour must be a name, got 3"):
        colours.get(3)


@pytest.mark.parametrize("path", ["math:no_such", "math:", ":pi", "no_such_module:x"])
def test_what_cannot_be_imported(path, colours):
    for get in (colours.get, lambda path: imported(path, "colour")):
        with pytest.raises(ValueError, match=f"colour: '{path}' cannot be imported: "):
            get(path)


def test_a_wrong_name_is_told_the_good_ones(colours):
    with pytest.raises(ValueError) as told:
        colours.get("gren")
    assert str(told.value) == (
        "colour has no 'gren', did you mean 'green'? (known: red, green, mauve, lost)"
    )
    assert nearest("xyz", ["red", "green"]) == "(known: red, green)"


def test_its_table_is_its_own():
    table = {"red": 1}
    made = Registry("colour", table)
    table["green"] = 2
    assert "green" not in made


@pytest.mark.parametrize("name", [["red"], None, 3, {"a": 1}])
def test_what_is_no_name_is_refused(colours, name):
    with pytest.raises(ValueError, match=r"colour must be a name, got .* \(known: red, green"):
        colours.get(name)
    assert name not in colours


def test_a_relative_path_is_refused(colours):
    with pytest.raises(ValueError, match="colour: '.x:y' cannot be imported"):
        colours.get(".x:y")
