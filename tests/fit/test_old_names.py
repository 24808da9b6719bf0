"""Arguments of before 0.2. Oracle: the same settings by their new names."""

import logging
from dataclasses import replace

import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader

from attent_stream import AtteNT
from attent_stream.effects.resolution import ProgressiveResolution
from attent_stream.experimental.kept_positions import KeptPositions
from attent_stream.experimental.reweighting import Reweight
from attent_stream.fit.run import Facts
from attent_stream.launch.config_check import ConfigError, checked_arguments

REFERENCE = {"snapshot": "5ba"}
STEPS = {"schedule": "step", "from": 0.5, "to": 1.0, "over": "0.5dur", "stages": 2}
SAME = [
    ("record", "always", {"remember": "always"}),
    ("record", "never", {"remember": "never"}),
    ("ledger", "shard", {"remember": {"per": "shard"}}),
    ("ledger", {"limit": "1mb", "detrend": True}, {"remember": {"limit": "1mb", "detrend": True}}),
    ("fidelity", "auto", {"scoring": {"fidelity": "auto"}}),
    ("head", "chunked", {"scoring": {"head": "chunked"}}),
    ("head", None, {"scoring": {"head": None}}),
    ("score_batch", 3, {"scoring": {"batch": 3}}),
    ("ceiling", 0.05, {"scoring": {"ceiling": 0.05}}),
]


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("name", "value", "new"), SAME)
def test_an_old_name_is_taken_with_one_warning_that_gives_the_new_one(caplog, name, value, new):
    assert AtteNT(**{name: value}).settings == AtteNT(**new).settings
    (told,) = warnings(caplog)
    ((argument, setting),) = new.items()
    assert told.startswith(f"AtteNT: {name} has a new name")
    assert f"use {argument}: {{" in told
    if isinstance(setting, dict):
        assert all(key in told for key in setting)


@pytest.mark.parametrize(
    ("old", "once", "again"),
    [
        ({"balance": "tokens"}, ["pieces", "balance"], ["balance"]),
        ({"seq_len": 0.5}, ["pieces", "balance"], ["pieces"]),
        ({"balance": "tokens", "seq_len": 1}, ["balance"], ["balance"]),
        ({"balance": "none", "seq_len": 0.5}, ["pieces"], ["pieces"]),
        ({"balance": "none"}, ["pieces"], []),
    ],
)
def test_an_arrangement_that_is_not_named_stays_the_default(old, once, again):
    """As it was: each had a default of its own."""
    settings = AtteNT(**old).settings
    for facts, names in ((Facts(text=True, once=True, packed=True), once), (Facts(), again)):
        assert settings.of_run(facts).teacher.arrangements.names == names


def test_the_reference_of_a_score_that_needs_one(caplog):
    old = AtteNT(score="learnability", reference=REFERENCE)
    assert old.settings == AtteNT(score="learnability", scoring={"reference": REFERENCE}).settings
    (told,) = warnings(caplog)
    assert "use scoring: {reference: ...}" in told


def test_several_old_names_of_one_argument_are_put_together(caplog):
    old = AtteNT(
        record="always", ledger="shard", head=None, ceiling=0.1, seq_len=0.5, balance="tokens"
    )
    new = AtteNT(
        remember={"when": "always", "per": "shard"},
        scoring={"head": None, "ceiling": 0.1},
        arrange={"pieces": 0.5, "balance": "tokens"},
    )
    assert old.settings == replace(new.settings, joined=True)
    assert len(warnings(caplog)) == 6


@pytest.mark.parametrize(
    "off", [{"balance": "none", "seq_len": 1.0}, {"balance": "none", "seq_len": 1}]
)
def test_arrangements_are_turned_off(off):
    assert AtteNT(**off).settings.without == {"pieces", "balance"}
    assert AtteNT(balance="none").settings.without == {"balance"}
    assert AtteNT(balance="none").settings.arrange is None


@pytest.mark.parametrize(
    ("name", "value", "kind", "new"),
    [
        ("resolution", 0.5, ProgressiveResolution, "progressive_resolution: {share: ...}"),
        ("resolution", STEPS, ProgressiveResolution, "progressive_resolution: {share: ...}"),
        ("reweight", "linupper", Reweight, "reweight: {strategy: ..., r: ...}"),
        ("reweight", {"strategy": "linupper", "r": 0.3}, Reweight, "reweight: {strategy"),
        ("positions", 0.5, KeptPositions, "kept_positions: {share: ...}"),
    ],
)
def test_what_is_an_algorithm_of_its_own_now_stands_beside(caplog, name, value, kind, new):
    algorithm = AtteNT(**{name: value})
    assert [type(one) for one in algorithm._beside] == [kind]
    assert algorithm.settings == AtteNT().settings
    (told,) = warnings(caplog)
    assert f"use the algorithm {new}" in told


@pytest.mark.parametrize(
    ("old", "beside"),
    [
        ({"reweight": {"strategy": "linupper", "r": 0.3}}, lambda: Reweight("linupper", r=0.3)),
        (
            {"positions": 0.5, "warmup": "3ba", "anneal": "0.25dur", "seed": 5},
            lambda: KeptPositions(0.5, warmup="3ba", anneal="0.25dur", seed=5),
        ),
    ],
)
def test_it_trains_as_by_its_new_name(tmp_path, old, beside):
    folder = write_tokens(tmp_path / "tokens", 48, length=LENGTH, vocab=VOCAB)
    plain = {"keep": 1.0, "select": "random"}
    given = {name: value for name, value in old.items() if name not in ("reweight", "positions")}
    by_old, _, trainer = fit(make_loader(folder), [AtteNT(**plain, **old)])
    by_new, _, _ = fit(make_loader(folder), [AtteNT(**plain, **given), beside()])
    assert by_old.losses == by_new.losses
    assert len(trainer.state.algorithms) == 2
    assert fit(make_loader(folder), [AtteNT(**plain)])[0].losses != by_old.losses


@pytest.mark.parametrize("off", [{"resolution": 1.0}, {"positions": 1.0}, {"reweight": None}])
def test_what_is_off_has_no_algorithm(off):
    assert AtteNT(**off)._beside == []


def test_auto_is_the_default_now(caplog):
    assert AtteNT(select="auto").settings == AtteNT().settings
    (told,) = warnings(caplog)
    assert "select: auto is the default now" in told


def test_what_is_none_says_nothing(caplog):
    given = dict.fromkeys(("record", "ledger", "balance", "seq_len", "score_batch", "reference"))
    assert AtteNT(**given).settings == AtteNT().settings
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"record": "always", "remember": "always"}, "remember"),
        ({"ledger": "shard", "remember": "always"}, "remember"),
        ({"balance": "tokens", "arrange": "none"}, "arrange"),
        ({"head": None, "scoring": {"batch": 2}}, "scoring"),
    ],
)
def test_both_names_are_an_error(given, argument):
    with pytest.raises(ValueError, match=f"{argument} cannot be given together with its old names"):
        AtteNT(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backward": 0.5}, "backward has gone, as it lost in every run .*: leave it away"),
        ({"ledger": {"decay": 0.1}}, "ledger.decay has gone, as it lost in every run"),
        ({"reweight": "linuper"}, "reweight must be one of linupper"),
        ({"reweight": {"r": 1}}, "reweight must be {strategy, r}, got {'r': 1}"),
        ({"reweight": {"strategy": "linupper", "k": 1}}, "reweight must be {strategy, r}, got"),
        ({"reweight": {"strategy": "linupper", "r": 0}}, "reweight.r must be a positive number"),
        ({"reweight": 3}, "reweight must be a strategy or {strategy, r}, got 3"),
        ({"positions": 0}, r"kept_positions.share must be in \(0, 1\], got 0"),
        ({"resolution": 1.5}, "progressive_resolution.share must be a number greater than 0"),
    ],
)
def test_what_has_gone_or_is_wrong_is_told_in_one_sentence(given, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")) as told:
        AtteNT(**given)
    assert "\n" not in str(told.value)


def test_what_had_no_effect_is_still_taken(caplog):
    assert AtteNT(backward=1.0).settings == AtteNT().settings
    assert AtteNT(ledger={"decay": 0.0, "per": "shard"}).settings.remember.per == "shard"


def test_the_signature_has_them_by_which_a_yaml_is_checked():
    checked = checked_arguments(AtteNT, {"keep": 1, "seq_len": 0.5, "backward": 1.0}, "k")
    assert checked == {"keep": 1.0, "seq_len": 0.5, "backward": 1.0}
    with pytest.raises(ConfigError, match="k.kep: unknown key, did you mean 'keep'"):
        checked_arguments(AtteNT, {"kep": 1}, "k")

    class Mine(AtteNT):
        def __init__(self, own: int) -> None:
            super().__init__(keep=own)

    assert checked_arguments(Mine, {"own": 1}, "k") == {"own": 1}


def test_an_argument_that_there_never_was():
    with pytest.raises(TypeError, match="AtteNT has no argument 'kep', did you mean 'keep'"):
        AtteNT(kep=0.5)
