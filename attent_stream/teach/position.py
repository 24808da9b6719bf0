"""Where a taught epoch stands, with all that cannot be computed again: our part of a checkpoint.

It is one JSON string of plain numbers and text, because Composer's sharded checkpoints flatten a
data set's state and lose nested values.
"""

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.cutting import MOST
from attent_stream.teach.packing import LARGEST, packed, unpacked
from attent_stream.teach.untold import Untold
from attent_stream.window.decision import ALL, RANDOM, REMEMBERED, SCORED, Decision

VERSION = 9
_READ = (5, 6, 7, 8, VERSION)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A window's choice in short.

    Args:
        decision: How it was chosen.
        kept: Which candidates are kept, bool of shape (C, row_size).
        weights: Weights of the lessons, float16 of shape (lessons, row_size * units); None if all
            are 1.
        places: See ``Choice.places``, int32 of shape (lessons, row_size * units). None if they can
            be drawn again: they cannot where features of candidates were needed.
    """

    decision: Decision
    kept: NDArray[np.bool_]
    weights: NDArray[np.float16] | None
    places: NDArray[np.int32] | None = None


@dataclass(frozen=True, kw_only=True)
class Position:
    """A point between two lessons of a taught epoch.

    Args:
        identity: Settings under which it was reached. A resume under others is refused.
        arrangements: The run's arrangements, as ``Arrangements.dump`` writes them; not trusted.
        epoch: Number of the epoch.
        first_row: Row at which its first window starts.
        segment: Index of the current segment.
        lesson: Number of its lessons that have been trained on.
        current: Choice of its window; None after the last full row.
        following: Choice of the window after it, once made.
        next: Decision about the window after those; None if there is none.
        scores: Scores of that window so far, float32 of shape (C, row_size), NaN where not known;
            None if none are needed, or if those are that are remembered when the choice begins.
        after: Decision about the window after ``next``'s, if a thread was choosing the latter.
        untold: What is told of ``following`` when it begins, as it was made in a thread; None if
            it was told already.
    """

    identity: dict[str, Any]
    arrangements: str
    epoch: int
    first_row: int
    segment: int
    lesson: int
    current: Chosen | None
    following: Chosen | None
    next: Decision | None
    scores: NDArray[np.float32] | None
    after: Decision | None = None
    untold: Untold | None = None

    def dump(self) -> str:
        """As a JSON string."""
        fields = {name: _plain(value) for name, value in vars(self).items()}
        return json.dumps({"version": VERSION, **fields}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> "Position":
        """From ``dump``'s string, or that of versions 5 to 8.

        Arrays may not unpack to more than their shapes say, nor may shapes be absurd.

        Raises:
            ValueError: Another version, or not such a string.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("version")
        except (json.JSONDecodeError, AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(
                f"expected a position written by attent_stream, got {str(text)[:40]!r}..."
            ) from error
        if version not in _READ:
            raise ValueError(f"expected a position of version {VERSION}, got version {version}")
        try:
            fields = _of_version_5(fields) if version == 5 else fields
            if version < 8:
                fields.pop("features")  # are read again
                fields |= {"after": None, "untold": False}
            if version < VERSION:
                fields["untold"] = _untold_of_version_8(fields["untold"])
            for name in ("epoch", "first_row", "segment", "lesson"):
                _count(fields[name], name)
            return cls(
                **{
                    **fields,
                    "current": _chosen(fields["current"]),
                    "following": _chosen(fields["following"]),
                    "next": _decision(fields["next"]),
                    "after": _decision(fields["after"]),
                    "scores": unpacked(fields["scores"]),
                    "untold": Untold.load(fields["untold"]),
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"the checkpoint's teaching position is damaged: {error}") from error

    def check(self, identity: dict[str, Any]) -> None:
        """Refuse to resume under other settings.

        Raises:
            ValueError: Names the settings that differ.
        """
        names = sorted(set(identity) | set(self.identity))
        differ = [n for n in names if identity.get(n) != self.identity.get(n)]
        if differ:
            told = ", ".join(
                f"{n}: {self.identity.get(n)} in the checkpoint, {identity.get(n)} now"
                for n in differ
            )
            raise ValueError(
                f"the checkpoint's teaching position was reached under other settings ({told})"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return packed(value)
    if isinstance(value, (Chosen, Untold)):
        return {name: _plain(part) for name, part in vars(value).items()}
    if isinstance(value, Decision):
        return {**vars(value), "notes": [list(note) for note in value.notes]}
    return value


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(
            f"expected {name} to be a whole number of at least 0, got {str(value)[:40]!r}"
        )
    return value


def _decision(value: Any) -> Decision | None:
    if value is None:
        return None
    kinds, pieces = (ALL, RANDOM, SCORED, REMEMBERED), [2**n for n in range(MOST.bit_length())]
    if value["by"] not in kinds:
        raise ValueError(f"expected a choice by {', '.join(kinds)}, got {str(value['by'])[:40]!r}")
    if type(value["units"]) is not int or value["units"] not in pieces:
        raise ValueError(f"expected one of {pieces} pieces, got {str(value['units'])[:40]!r}")
    if type(value["features"]) is not bool:
        raise ValueError(f"expected features to be true or false, got {value['features']!r:.40}")
    notes = [(name, _count(note, "a note")) for name, note in value["notes"]]
    if not all(isinstance(name, str) for name, _ in notes):
        raise ValueError(f"expected names of arrangements, got {notes!r:.80}")
    return Decision(
        **{**value, "lessons": _count(value["lessons"], "lessons"), "notes": tuple(notes)}
    )


def _chosen(value: Any) -> Chosen | None:
    if value is None:
        return None
    decision = _decision(value["decision"])
    kept, weights, places = (unpacked(value[name]) for name in ("kept", "weights", "places"))
    if kept is None or decision is None:
        raise ValueError("expected how a window was chosen and what was kept, got nothing")
    shape = decision.lessons, kept.shape[1] * decision.units
    if kept.size * decision.units > LARGEST:
        raise ValueError(
            f"expected at most {LARGEST} pieces of candidates, got {kept.size} in {decision.units}"
        )
    if weights is not None:
        good = (np.isfinite(weights) & (weights >= 0)).all()
        if weights.shape != shape or not good:
            raise ValueError(
                f"expected finite weights of at least 0 of shape {shape}, got shape {weights.shape}"
            )
    if decision.features and places is None:
        raise ValueError(f"expected places of shape {shape}, got none")
    if places is not None and not (
        places.shape == shape and _are_units_of(kept, decision.units, places)
    ):
        raise ValueError(
            f"expected the places of what was kept, shape {shape}, got others of shape "
            f"{places.shape}"
        )
    return Chosen(decision=decision, kept=kept, weights=weights, places=places)


def _are_units_of(kept: NDArray[np.bool_], units: int, places: NDArray[np.int32]) -> bool:
    wanted = np.flatnonzero(kept.reshape(-1).repeat(units))
    return np.array_equal(np.sort(places, axis=None), wanted)


def _untold_of_version_8(value: Any) -> dict[str, Any] | None:
    """Version 8 kept nothing of it."""
    if type(value) is not bool:
        raise ValueError(f"expected untold to be true or false, got {value!r:.40}")
    return {"scores": None, "measured": None} if value else None


def _of_version_5(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of version 5, in which the two arrangements had fields of their own."""

    def decision(by: Any, lessons: Any, pieces: Any, balanced: Any) -> dict[str, Any]:
        notes = [["pieces", pieces]] if pieces != 1 else []
        notes += [["balance", 1]] if balanced else []
        return {"by": by, "lessons": lessons, "notes": notes, "units": pieces, "features": balanced}

    def chosen(old: Any) -> dict[str, Any] | None:
        if old is None:
            return None
        how = decision(old["by"], old["lessons"], old["pieces"], old["balanced"])
        parts = {"kept": old["kept"], "weights": old["weights"], "places": old["positions"]}
        return {"decision": how, **parts}

    old = dict(fields)
    by, lessons, balanced, pieces = (
        old.pop(f"next_{name}") for name in ("by", "lessons", "balanced", "pieces")
    )
    return {
        **old,
        "arrangements": json.dumps([["pieces", 0.5], ["balance", "tokens"]]),
        "current": chosen(old["current"]),
        "following": chosen(old["following"]),
        "next": None if by is None else decision(by, lessons, pieces, balanced),
    }
