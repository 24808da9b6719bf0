"""Where a taught epoch stands, and what cannot be computed again: the part of a checkpoint that is
ours.

Everything is plain numbers and text in one JSON string, because Composer's sharded checkpoints
flatten a data set's state and lose nested values.
"""

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.pieces import MOST
from attent_stream.window.choice import Decision

VERSION = 5
_BITS = {"bool": 1, "float16": 16, "float32": 32, "int32": 32}
# Candidates of a window, far beyond 1,024 nodes: what a few bytes of zlib may ask for ends here
_LARGEST = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A window's choice, short.

    Args:
        by: How it was chosen.
        lessons: How many lesson rows.
        kept: Which candidates, bool of shape (C, row_size).
        weights: Of the lessons, float16 of shape (lessons, row_size * pieces); None where all are
            1.
        positions: Which candidate (of several pieces, which of all pieces) each lesson is, int32 of
            shape (lessons, row_size * pieces); None where it can be told without: those kept in
            stream order, or their pieces as drawn.
        balanced: Whether it was made by features.
        pieces: Into how many each sample is cut.
    """

    by: str
    lessons: int
    kept: NDArray[np.bool_]
    weights: NDArray[np.float16] | None
    positions: NDArray[np.int32] | None = None
    balanced: bool = False
    pieces: int = 1

    @property
    def decision(self) -> Decision:
        """What was decided of it before."""
        return Decision(
            by=self.by, lessons=self.lessons, balanced=self.balanced, pieces=self.pieces
        )


@dataclass(frozen=True, kw_only=True)
class Position:
    """A point between two lessons of a taught epoch.

    Args:
        identity: Settings under which it was reached; a resume under others is refused.
        epoch: Which epoch.
        first_row: Row at which its first window starts.
        segment: Index of the segment that is under way.
        lesson: Lessons of it that have been trained on.
        current: Choice of the segment's window, None after the last full row.
        following: Choice of the next window, once made.
        next_by: How the window after those will be chosen, None if there is none.
        next_lessons: How many lesson rows it will have.
        next_balanced: Whether its lessons will be.
        next_pieces: Into how many its samples will be cut.
        scores: Its scores so far, float32 of shape (C, row_size), NaN where not yet known; None if
            none is wanted.
        features: Its features so far, float16 of shape (C, row_size * pieces * d), NaN where not
            yet known; None if none are wanted.
    """

    identity: dict[str, Any]
    epoch: int
    first_row: int
    segment: int
    lesson: int
    current: Chosen | None
    following: Chosen | None
    next_by: str | None
    next_lessons: int
    next_balanced: bool
    next_pieces: int
    scores: NDArray[np.float32] | None
    features: NDArray[np.float16] | None

    def dump(self) -> str:
        """As a JSON string."""
        fields = {name: _pack(value) for name, value in vars(self).items()}
        return json.dumps({"version": VERSION, **fields}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> "Position":
        """From ``dump``'s string.

        Raises:
            ValueError: Another version, or no such string; its arrays may not unpack to more than
                their shapes say, nor these be absurd.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("version")
        except (json.JSONDecodeError, AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(
                f"expected a position written by attent_stream, got {str(text)[:40]!r}..."
            ) from error
        if version != VERSION:
            raise ValueError(f"expected a position of version {VERSION}, got version {version}")
        try:
            for name in ("epoch", "first_row", "segment", "lesson", "next_lessons"):
                _count(fields[name], name)
            chosen = {name: _chosen(fields[name]) for name in ("current", "following")}
            _truth(fields["next_balanced"], "next_balanced")
            _pieces(fields["next_pieces"])
            arrays = {name: _array(fields[name]) for name in ("scores", "features")}
            return cls(**{**fields, **chosen, **arrays})
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"the checkpoint's teaching position is damaged: {error}") from error

    def check(self, identity: dict[str, Any]) -> None:
        """Refuse to resume under other settings.

        Raises:
            ValueError: The settings that differ, by name.
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


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = np.packbits(value) if value.dtype == bool else value
        text = base64.b64encode(zlib.compress(data.tobytes(), 1)).decode()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "data": text}
    if isinstance(value, Chosen):
        return {name: _pack(part) for name, part in vars(value).items()}
    return value


def _array(value: Any) -> NDArray | None:
    if value is None:
        return None
    shape, kind = value["shape"], value["dtype"]
    if kind not in _BITS:
        raise ValueError(
            f"expected an array of {', '.join(_BITS)} in a position, got {str(kind)[:40]!r}"
        )
    counts = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int and 0 <= n <= _LARGEST for n in shape)
    )
    if not counts or shape[0] * shape[1] > _LARGEST:
        raise ValueError(
            f"expected an array of two axes and at most {_LARGEST} candidates, got shape "
            f"{str(shape)[:40]}"
        )
    count = shape[0] * shape[1]
    size = -(-count * _BITS[kind] // 8)
    unpacker = zlib.decompressobj()
    # 1 more tells that there is more
    data = unpacker.decompress(base64.b64decode(value["data"], validate=True), size + 1)
    if len(data) != size or not unpacker.eof:
        raise ValueError(
            f"expected {size} bytes for shape {shape} of {kind}, got "
            f"{'more' if len(data) > size else len(data)}"
        )
    if kind == "bool":
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape).copy()


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(
            f"expected {name} to be a whole number of at least 0, got {str(value)[:40]!r}"
        )
    return value


def _chosen(value: Any) -> Chosen | None:
    if value is None:
        return None
    lessons, kept, weights = (
        _count(value["lessons"], "lessons"),
        _array(value["kept"]),
        _array(value["weights"]),
    )
    balanced, pieces = _truth(value["balanced"], "balanced"), _pieces(value["pieces"])
    if kept is None:
        raise ValueError("expected which candidates were kept, got nothing")
    shape = lessons, kept.shape[1] * pieces
    if kept.size * pieces > _LARGEST:
        raise ValueError(
            f"expected at most {_LARGEST} pieces of candidates, got {kept.size} in {pieces}"
        )
    if weights is not None and (
        weights.shape != shape or not (np.isfinite(weights) & (weights >= 0)).all()
    ):
        raise ValueError(
            f"expected finite weights of shape {shape}, got shape {weights.shape} or a weight that "
            "is none"
        )
    positions = _array(value["positions"])
    if balanced and positions is None:
        raise ValueError(f"expected positions of shape {shape}, got none")
    if positions is not None and not (
        positions.shape == shape and _those_of(kept, pieces, positions)
    ):
        raise ValueError(
            f"expected the positions of what was kept, shape {shape}, got others, shape "
            f"{positions.shape}"
        )
    return Chosen(
        by=str(value["by"]),
        lessons=lessons,
        kept=kept,
        weights=weights,
        positions=positions,
        balanced=balanced,
        pieces=pieces,
    )


def _those_of(kept: NDArray[np.bool_], pieces: int, positions: NDArray[np.int32]) -> bool:
    return np.array_equal(
        np.sort(positions, axis=None), np.flatnonzero(kept.reshape(-1).repeat(pieces))
    )


def _truth(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected {name} to be true or false, got {str(value)[:40]!r}")
    return value


def _pieces(value: Any) -> int:
    if type(value) is not int or value not in [2**n for n in range(MOST.bit_length())]:
        raise ValueError(
            f"expected pieces to be a power of 2 of at most {MOST}, got {str(value)[:40]!r}"
        )
    return value
