"""A position in a checkpoint is data from elsewhere: it is read with care."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from attent_stream.teach.packing import packed as packed_array
from attent_stream.teach.packing import unpacked
from attent_stream.teach.position import VERSION, Chosen, Position
from attent_stream.teach.untold import Untold
from attent_stream.window.decision import ALL, SCORED, Decision


def position(**changes) -> str:
    kept = {"dtype": "bool", "shape": [2, 8], "data": packed(bytes(2))}
    decision = {"by": "all", "lessons": 2, "notes": [], "units": 1, "features": False}
    chosen = {"decision": decision, "kept": kept, "weights": None, "places": None}
    scores = {"dtype": "float32", "shape": [2, 8], "data": packed(bytes(64))}
    fields = {
        "identity": {},
        "arrangements": "[]",
        "epoch": 0,
        "first_row": 0,
        "segment": 0,
        "lesson": 1,
        "current": chosen,
        "following": None,
    }
    fields |= {
        "next": {**decision, "by": "scored", "lessons": 1},
        "scores": scores,
        "after": None,
        "untold": None,
    }
    fields["version"] = VERSION
    fields = json.loads(json.dumps(fields))  # no part is shared
    for path, value in changes.items():
        *inner, last = path.split("__")
        part = fields
        for name in inner:
            part = part[name]
        part[last] = value
    return json.dumps(fields)


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


DECISION = {"by": "all", "lessons": 2, "notes": [], "units": 1, "features": False}
COUNTED = {"candidates": 0, "lessons": 8, "dropped": 8, "nonfinite": 0, "empty": 0}
BIG = {"dtype": "bool", "shape": [1 << 5, 1 << 20], "data": packed(bytes(1 << 22))}
BAD_POSITIONS = [
    (
        {"scores__data": packed(bytes(1 << 28))},
        "expected 64 bytes for shape [2, 8] of float32, got more",
    ),
    (
        {"current__kept__data": packed(bytes(1 << 28))},
        "expected 2 bytes for shape [2, 8] of bool, got more",
    ),
    ({"scores__data": packed(bytes(60))}, "expected 64 bytes for shape [2, 8] of float32, got 60"),
    (
        {"scores__shape": [1 << 20, 1 << 20]},
        "at most 268435456 candidates, got shape [1048576, 1048576]",
    ),
    (
        {"scores__zlib": False, "scores__data": base64.b64encode(bytes(65)).decode()},
        "expected 64 bytes for shape [2, 8] of float32, got more",
    ),
    (
        {"scores__zlib": False, "scores__data": base64.b64encode(bytes(63)).decode()},
        "expected 64 bytes for shape [2, 8] of float32, got 63",
    ),
    ({"scores__shape": [-1, -16]}, "expected an array of two axes"),
    ({"scores__shape": [16]}, "expected an array of two axes"),
    ({"scores__shape": [True, 16]}, "expected an array of two axes"),
    (
        {"scores__dtype": "object"},
        "expected an array of bool, float16, float32, int32 in a position, got 'object'",
    ),
    ({"scores__data": "\x00"}, "damaged"),
    ({"scores__data": packed(bytes(64))[:-5]}, "damaged"),
    ({"current__decision__lessons": -1}, "lessons to be a whole number"),
    ({"current__kept": None}, "expected how a window was chosen and what was kept, got nothing"),
    (
        {"current__weights": {"dtype": "float16", "shape": [2, 7], "data": packed(bytes(28))}},
        "weights of at least 0 of shape (2, 8), got shape (2, 7)",
    ),
    (
        {"current__weights": {"dtype": "float16", "shape": [2, 8], "data": packed(b"\0\x7c" * 16)}},
        "expected finite weights",
    ),
    (
        {"current__places": {"dtype": "int32", "shape": [2, 8], "data": packed(bytes(64))}},
        "the places of what was kept",
    ),
    (
        {"current__places": {"dtype": "int32", "shape": [1, 8], "data": packed(bytes(32))}},
        "the places of what was kept",
    ),
    ({"next__features": 1}, "features to be true or false, got 1"),
    ({"next__units": 3}, "expected one of [1, 2, 4, 8, 16] pieces, got '3'"),
    ({"next__by": "chance"}, "a choice by all, random, scored, remembered, got 'chance'"),
    ({"next__notes": [["pieces", -1]]}, "a note to be a whole number of at least 0, got '-1'"),
    ({"next__notes": [[1, 1]]}, "expected names of arrangements"),
    ({"next__notes": [1]}, "damaged"),
    ({"next__surprise": 1}, "damaged"),
    (
        {"current__decision__units": 1 << 40},
        "expected one of [1, 2, 4, 8, 16] pieces, got '1099511627776'",
    ),
    (
        {"current__kept": BIG, "current__decision__units": 16},
        "at most 268435456 pieces of candidates, got 33554432 in 16",
    ),
    (
        {"current__decision__units": 2, "current__decision__features": True},
        "expected places of shape (2, 16), got none",
    ),
    ({"current__decision__features": True}, "expected places of shape (2, 8), got none"),
    (
        {"scores": {"dtype": "float32", "shape": [2, 8, 4], "data": packed(bytes(256))}},
        "expected an array of two axes",
    ),
    (
        {"scores": {"dtype": "float32", "shape": [2, 8], "width": 2, "data": packed(bytes(32))}},
        "expected int32 of 1 to 4 bytes, got float32 of '2'",
    ),
    (
        {"current__places": {"dtype": "int32", "shape": [2, 8], "width": 9, "data": ""}},
        "expected int32 of 1 to 4 bytes, got int32 of '9'",
    ),
    (
        {
            "current__places": {
                "dtype": "int32",
                "shape": [2, 8],
                "width": 1,
                "zlib": False,
                "data": "",
            }
        },
        "expected 16 bytes for shape [2, 8] of int32, got 0",
    ),
    ({"untold": 1}, "damaged"),
    ({"untold": {"scores": None}}, "damaged"),
    ({"untold": {"scores": None, "measured": [{"keep": "1"}, {}]}}, "expected numbers as metrics"),
    ({"untold": {"scores": None, "measured": [{}, {"lessons": 1}]}}, "expected counts of cand"),
    ({"untold": {"scores": None, "measured": [{}, {**COUNTED, "empty": -1}]}}, "expected counts"),
    ({"untold": {"scores": None, "measured": [{}, []]}}, "expected counts of candidates, lessons"),
    ({"version": 8, "untold": None}, "expected untold to be true or false, got None"),
    ({"after": {**DECISION, "units": 3}}, "expected one of [1, 2, 4, 8, 16] pieces, got '3'"),
    ({"lesson": "1"}, "lesson to be a whole number of at least 0, got '1'"),
    ({"surprise": 1}, "damaged"),
]


# Loops, not parametrised tests: the session's clean-up after each test takes a second.
def test_a_damaged_or_malicious_position_is_refused_in_a_sentence():
    assert Position.load(position()).scores.shape == (2, 8)
    for change, message in BAD_POSITIONS:
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            Position.load(position(**change))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    for text in ("[" * 100000, "[]", "5", "null", "", "{}"):
        with pytest.raises(ValueError, match="expected a position written by attent_stream"):
            Position.load(text)


def test_dump_and_load():
    kept = np.arange(16).reshape(2, 8) % 2 == 0
    decision = Decision(
        by=SCORED, lessons=1, notes=(("pieces", 2), ("balance", 1)), units=2, features=True
    )
    places = np.flatnonzero(kept.reshape(-1).repeat(2))[::-1].reshape(1, 16).astype(np.int32)
    weights = np.linspace(0, 2, 16).astype(np.float16).reshape(1, 16)
    made = Position(
        identity={"window": 2},
        arrangements="[]",
        epoch=1,
        first_row=3,
        segment=4,
        lesson=0,
        current=Chosen(decision=decision, kept=kept, weights=weights, places=places),
        following=None,
        next=Decision(by=ALL, lessons=2),
        scores=None,
        untold=Untold(
            scores=np.linspace(0, 1, 16).astype(np.float32).reshape(2, 8),
            measured=({"keep": 0.5}, COUNTED),
        ),
    )
    again = Position.load(made.dump())
    np.testing.assert_array_equal(again.untold.scores, made.untold.scores)
    assert again.untold.measured == made.untold.measured
    assert again.current.decision == decision and again.next == made.next
    for name in ("kept", "weights", "places"):
        np.testing.assert_array_equal(getattr(again.current, name), getattr(made.current, name))
    assert again.dump() == made.dump()


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1])
def test_whole_numbers_take_the_bytes_that_they_need(largest):
    values = np.array([[largest, 0, largest // 3]], np.int32)
    made = json.loads(json.dumps(packed_array(values)))
    found = unpacked(made)
    assert found.dtype == np.int32 and found.tolist() == values.tolist()
    assert len(base64.b64decode(made["data"])) == 3 * max(1, len(f"{largest:x}") + 1 >> 1)
    assert unpacked(packed_array(np.zeros((0, 4), np.int32))).shape == (0, 4)


@pytest.mark.parametrize("version", [6, 7])
def test_older_versions_are_read(version):
    features = {"dtype": "float16", "shape": [2, 8], "data": packed(bytes(32))}
    fields = json.loads(position()) | {"version": version, "features": features}
    assert Position.load(json.dumps(fields)).scores.shape == (2, 8)


def test_version_5_is_read():
    kept = {"dtype": "bool", "shape": [2, 8], "data": packed(bytes([255, 0]))}
    places = np.arange(16, dtype=np.int32)[::-1]
    old = {
        "by": "random",
        "lessons": 1,
        "kept": kept,
        "weights": None,
        "positions": {"dtype": "int32", "shape": [1, 16], "data": packed(places.tobytes())},
        "balanced": True,
        "pieces": 2,
    }
    fields = {
        "version": 5,
        "identity": {},
        "epoch": 0,
        "first_row": 0,
        "segment": 0,
        "lesson": 1,
        "current": old,
        "following": None,
        "next_by": "all",
        "next_lessons": 2,
        "next_balanced": False,
        "next_pieces": 4,
        "scores": None,
        "features": None,
    }
    position = Position.load(json.dumps(fields))
    assert position.current.decision == Decision(
        by="random", lessons=1, notes=(("pieces", 2), ("balance", 1)), units=2, features=True
    )
    assert position.next == Decision(by="all", lessons=2, notes=(("pieces", 4),), units=4)
    np.testing.assert_array_equal(position.current.places.reshape(-1), places)
