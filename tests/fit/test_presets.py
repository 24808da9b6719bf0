"""The presets say what the paper says, and their arguments are ones that can be read."""

import math

import pytest

from attent_stream import AtteNT
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Clock, Span
from attent_stream.fit.presets import PRESETS, preset
from attent_stream.memory.remember import WHEN
from attent_stream.score.scores import SCORES
from attent_stream.window.selectors import SELECTORS


def at(dur, ep=0.0):
    return Clock(ep=ep, ba=0, sp=0, tok=0, dur=dur)


@pytest.mark.parametrize("name", PRESETS)
def test_every_argument_is_valid(name):
    settings = preset(name)
    parse_share(settings["keep"])
    parse_interval(settings["interval"])
    assert settings["score"] in SCORES and settings["select"] in SELECTORS
    assert settings["remember"] in WHEN
    phases = Phases(warmup=Span.parse(settings["warmup"]))
    assert not phases.teaching(at(0.1, ep=0.99), None) and phases.teaching(at(0.2, ep=1.0), None)


@pytest.mark.parametrize("name", PRESETS)
def test_attent_takes_every_argument(name, caplog):
    AtteNT(**preset(name, seed=3))
    assert not caplog.records  # no old name is among them


@pytest.mark.parametrize("name", PRESETS)
def test_old_names_replace_what_they_named(name):
    when = preset(name)["remember"]
    assert AtteNT(**preset(name, record="always")).settings.remember.when == "always"
    remember = AtteNT(**preset(name, ledger="shard")).settings.remember
    assert (remember.when, remember.per) == (when, "shard")
    assert AtteNT(**preset(name, remember={"per": "shard"})).settings.remember.when is None


def test_complex_is_the_papers():
    settings = preset("attent_complex")
    keep, interval = parse_share(settings["keep"]), parse_interval(settings["interval"])
    for dur in (0.0, 0.3, 0.5, 1.0):
        assert keep.at(at(dur)) == pytest.approx(0.2 + 0.6 * (1 - math.cos(math.pi * dur)) / 2)
        assert interval.at(at(dur)) == pytest.approx(5 + 45 * dur)
    assert interval.unit == "ep" and settings["select"] == "soft"


def test_simple_is_the_papers():
    settings = preset("attent_simple")
    assert parse_share(settings["keep"]).at(at(0.5)) == 0.7
    interval = parse_interval(settings["interval"])
    assert interval.unit == "dur" and interval.at(at(1.0)) == 1.0  # nothing is ever that old
    named = ("score", "select", "remember")
    assert [settings[name] for name in named] == ["loss", "hard", "warmup"]


def test_overrides_leave_the_preset_alone():
    changed = preset("attent_complex", seed=5, keep=0.5)
    assert changed["seed"] == 5 and changed["keep"] == 0.5 and changed["select"] == "soft"
    preset("attent_complex")["keep"]["to"] = 9
    assert preset("attent_complex")["keep"]["to"] == 0.8
    assert "seed" not in preset("attent_complex")


def test_an_unknown_preset_is_named():
    message = "unknown preset 'atent_simple', did you mean 'attent_simple'"
    with pytest.raises(ValueError, match=message):
        preset("atent_simple")
