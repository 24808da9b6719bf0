"""The arrangements of a run. Oracles: arrangements whose effect is known."""

import json
import re
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from attent_stream.arrange.arrangement import Arrangement
from attent_stream.arrange.arrangements import ARRANGEMENTS, MOST, Arrangements
from attent_stream.arrange.balance import Balance
from attent_stream.base.span import Clock
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import RANDOM, SCORED, Decision

CLOCK = Clock(ep=0, ba=0, sp=0, tok=0, dur=0)
ROWS, SIZE = 6, 4


@dataclass(frozen=True)
class Halves(Arrangement):
    """Cuts every sample in two; its note is 5."""

    cuts: ClassVar[bool] = True

    def decide(self, window, end, units):
        return 5

    def units(self, note):
        assert note == 5
        return 2

    def lesson(self, batch, pieces, note):
        return [*batch, "halves", *pieces]

    def arrange(self, selected, note):
        places = selected.places[..., None] * 2 + np.arange(2)
        return places.reshape(len(places), -1), {"halves": float(note)}


@dataclass(frozen=True)
class Back(Arrangement):
    """Reverses the order of all units; its note is the number of a sample's units plus ``more``."""

    more: int = 0
    seen: ClassVar[list] = []

    def decide(self, window, end, units):
        return units + self.more

    def lesson(self, batch, pieces, note):
        return [*batch, "back", note]

    def arrange(self, selected, note):
        self.seen.append((selected, selected.rng.integers(1 << 40)))
        return selected.places[::-1, ::-1], {}


class Reader(Back):
    """The same, and reads features."""

    reads: ClassVar[bool] = True

    def features(self, batch, units):
        return torch.full((batch, 2 * units), 3.0).half()


class Never(Back):
    """Never does anything."""

    def decide(self, window, end, units):
        return 0


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    made = {"halves": Halves, "back": Back, "reader": Reader, "never": Never}
    monkeypatch.setattr(ARRANGEMENTS, "known", ARRANGEMENTS.known | made)
    monkeypatch.setattr(Back, "seen", [])


def window() -> Window:
    ids = np.random.default_rng(1).permutation(100)[: ROWS * SIZE].reshape(ROWS, SIZE)
    return Window(
        epoch=3, index=7, ids=ids, lanes=np.zeros_like(ids), unit=SIZE, share=0.0, until=1.0
    )


def run_of(*names: str) -> Arrangements:
    return Arrangements.parse(dict.fromkeys(names))


def decided(run: Arrangements) -> Decision:
    return run.decided(Decision(by=RANDOM, lessons=3), window(), CLOCK)


def test_those_that_cut_come_first():
    assert run_of("back", "never", "halves").names == ["halves", "back", "never"]
    more = Arrangements.parse({"never": None}).joined(run_of("back", "halves"))
    assert [entry.name for entry in more.entries] == ["halves", "never", "back"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"balanse": None}, "arrange has no 'balanse', did you mean 'balance'? (known: pieces, ba"),
        ({"no_such_module:X": 1}, "arrange: 'no_such_module:X' cannot be imported"),
        ({"math:pi": 1}, "arrange: 'math:pi' must be a class derived from Arrangement"),
        ({"builtins:dict": 1}, "'builtins:dict' must be a class derived from Arrangement"),
        ({"pieces": 0.9}, "arrange.pieces must be 1, or below 0.7 at some time"),
        ({"balance": "words"}, "arrange.balance has no 'words', "),
        ({"back": {"less": 1}}, "arrange.back must be of plain values, got {'less': 1}: "),
        ({"back": {1, 2}}, "arrange.back must be of plain values, got {1, 2}: "),
        (
            {"balance": "tokens", "reader": None},
            "arrange takes one arrangement that reads features, got ['balance', 'reader']",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Arrangements.parse(settings)


def test_there_is_a_largest_number():
    names = [f"never {number}" for number in range(MOST + 1)]
    ARRANGEMENTS.known |= dict.fromkeys(names, Never)
    assert run_of(*names[:MOST]).names == names[:MOST]
    with pytest.raises(ValueError, match=f"arrange takes at most {MOST} arrangements, got 9"):
        run_of(*names)


def test_dump_and_load():
    run = Arrangements.parse({"back": {"more": 2}, "pieces": 0.5, "balance": "tokens"})
    assert Arrangements.load(run.dump()) == run
    assert json.loads(run.dump()) == [["pieces", 0.5], ["back", {"more": 2}], ["balance", "tokens"]]


def test_those_of_a_checkpoint_arrange_no_new_windows():
    theirs = Arrangements.parse({"back": {"more": 9}, "balance": "tokens", "halves": None})
    run = Arrangements.parse({"back": {"more": 2}}).of_checkpoint(theirs.dump())
    assert [entry.name for entry in run.entries] == ["halves", "back", "balance"]
    assert run.names == ["back"] and run.entries[1].made == Back(more=2)
    assert run.entries[2].made == Balance(by="tokens")
    assert run.of_checkpoint(theirs.dump()) == run


def test_a_checkpoint_imports_no_name_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "of_a_checkpoint.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("of_a_checkpoint:Back", "elsewhere"):
        with pytest.raises(ValueError, match=f"arranged by '{name}': add it to arrange"):
            run_of("back").of_checkpoint(json.dumps([["halves", None], [name, None]]))
    assert "of_a_checkpoint" not in sys.modules


def test_a_decision_has_the_notes_of_all_that_act():
    found = decided(run_of("back", "never", "halves"))
    assert found.notes == (("halves", 5), ("back", 2)) and found.units == 2
    assert (found.by, found.lessons, found.features) == (RANDOM, 3, False)
    assert decided(run_of("back")).notes == (("back", 1),)
    assert decided(run_of("reader")).features
    assert decided(run_of("never")) == Decision(by=RANDOM, lessons=3)
    assert decided(run_of("halves", "back").without("halves")).notes == (("back", 1),)


def test_units_and_features_follow_from_the_notes():
    run = run_of("halves", "reader", "never")
    decision = Decision(by=SCORED, lessons=2, units=8, features=True)
    plain = run.noted(decision, [])
    assert plain == Decision(by=SCORED, lessons=2)
    both = run.noted(plain, [("reader", 1), ("halves", 5)])
    assert both.units == 2 and both.features and both.reads
    assert run.noted(plain, [("unknown", 3)]).units == 1


def test_notes_of_those_that_are_off_are_dropped():
    run = run_of("halves", "reader", "back")
    full = decided(run)
    assert run.kept(full) == full
    without_reader = run.without("reader").kept(full)
    assert without_reader.notes == (("halves", 5), ("back", 2))
    assert without_reader.units == 2 and not without_reader.features
    # The other notes were decided for pieces
    assert run.without("halves").kept(full) == Decision(by=RANDOM, lessons=3)
    short = decided(run.without("halves"))
    assert run.without("halves").kept(short) == short


def test_a_vector_is_read_back():
    run = run_of("halves", "reader", "never")
    found = decided(run)
    assert run.vector(found) == [5, 2, 0]
    for vector in ([5, 2, 0], [5, 2, 0, 0, 0]):
        again = run.from_vector(RANDOM, vector)
        assert again == Decision(
            by=RANDOM, lessons=0, notes=found.notes, units=found.units, features=True
        )


def choice_of(decision: Decision) -> Choice:
    places = np.random.default_rng(2).permutation(ROWS * SIZE)[: 3 * SIZE].reshape(3, SIZE)
    weights = (places / 2).astype(np.float32)
    return Choice(
        decision=decision,
        places=places,
        weights=weights,
        scores=None,
        window=window(),
        metrics={"of selector": 1.0},
    )


def test_lessons_are_arranged_one_after_the_other():
    run = run_of("reader", "halves")
    choice = choice_of(decided(run))
    features = np.arange(ROWS * SIZE * 2 * 3, dtype=np.float16)
    found = run.arranged(choice, features.reshape(ROWS, SIZE, 6), seed=11)
    halves = [2 * place + half for place in choice.places.flat for half in (0, 1)]
    assert found.places.tolist() == np.reshape(halves[::-1], (3, 2 * SIZE)).tolist()
    np.testing.assert_array_equal(found.weights, (found.places // 2 / 2).astype(np.float32))
    assert found.metrics == {"of selector": 1.0, "halves": 5.0}
    ((selected, drawn),) = Back.seen
    assert selected.units == 2
    np.testing.assert_array_equal(selected.features, features.reshape(ROWS, SIZE * 2, 3))
    assert drawn == np.random.default_rng([11, 3, 7, 2]).integers(1 << 40)


def test_features_are_for_those_that_read_them():
    for names in (("back",), ("reader",)):
        run = run_of(*names)
        known = np.zeros((ROWS, SIZE, 3), np.float16) if names == ("back",) else None
        run.arranged(choice_of(decided(run)), known, seed=11)
    assert all(selected.features is None for selected, _ in Back.seen)


def test_a_choice_without_notes_stays():
    choice = choice_of(Decision(by=RANDOM, lessons=3))
    assert run_of("back", "halves").arranged(choice, None, seed=0) is choice


def test_batches_of_lessons_and_features():
    run = run_of("reader", "halves", "never")
    found = decided(run)
    assert run.lesson(["batch"], [0, 1], found) == ["batch", "halves", 0, 1, "back", 2]
    features = run.features(5, found)
    assert features.dtype == np.float16 and features.tolist() == [[3.0] * 4] * 5


@pytest.mark.parametrize("value", ["no_such_module:f", {"by": "no_such_module:f"}, ["a:b"]])
def test_a_setting_of_a_checkpoint_imports_nothing(value):
    with pytest.raises(ValueError, match="arranged by 'balance': add it to arrange"):
        Arrangements().of_checkpoint(json.dumps([["balance", value]]))


@pytest.mark.parametrize(
    "text", ["5", "null", "[1]", '[["a"], 1]', '[[["a"], 1]]', "{}", "[", "[" * 100000, None]
)
def test_a_damaged_checkpoint_is_refused(text):
    with pytest.raises(ValueError):
        Arrangements().of_checkpoint(text)
