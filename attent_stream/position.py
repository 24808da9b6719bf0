"""Where a taught epoch stands, and what cannot be computed again: the part of a checkpoint that is ours.

Everything is plain numbers and text in one JSON string, because Composer's sharded checkpoints flatten a data set's state
and lose nested values.
"""

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A window's choice, short: how, how many lesson rows, and which candidates (bool of shape (C, row_size))."""

    by: str
    lessons: int
    kept: NDArray[np.bool_]


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
        scores: Its scores so far, float32 of shape (C, row_size), NaN where not yet known; None if none is wanted.
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
    scores: NDArray[np.float32] | None

    def dump(self) -> str:
        """As a JSON string."""
        fields = {name: _pack(value) for name, value in vars(self).items()}
        return json.dumps({"version": VERSION, **fields}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> "Position":
        """From ``dump``'s string.

        Raises:
            ValueError: Another version, or no such string.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("version")
        except (json.JSONDecodeError, AttributeError, KeyError) as error:
            raise ValueError(f"expected a position written by attent_stream, got {text[:40]!r}...") from error
        if version != VERSION:
            raise ValueError(f"expected a position of version {VERSION}, got version {version}")
        chosen = {name: _chosen(fields[name]) for name in ("current", "following")}
        return cls(**{**fields, **chosen, "scores": _array(fields["scores"])})

    def check(self, identity: dict[str, Any]) -> None:
        """Refuse to resume under other settings.

        Raises:
            ValueError: The settings that differ, by name.
        """
        names = sorted(set(identity) | set(self.identity))
        differ = [n for n in names if identity.get(n) != self.identity.get(n)]
        if differ:
            told = ", ".join(f"{n}: {self.identity.get(n)} in the checkpoint, {identity.get(n)} now" for n in differ)
            raise ValueError(f"the checkpoint's teaching position was reached under other settings ({told})")


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = np.packbits(value) if value.dtype == bool else value
        text = base64.b85encode(zlib.compress(data.tobytes(), 1)).decode()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "data": text}
    if isinstance(value, Chosen):
        return {name: _pack(part) for name, part in vars(value).items()}
    return value


def _array(value: Any) -> NDArray | None:
    if value is None:
        return None
    shape, data = tuple(value["shape"]), zlib.decompress(base64.b85decode(value["data"]))
    if value["dtype"] == "bool":
        return np.unpackbits(np.frombuffer(data, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
    if value["dtype"] != "float32":
        raise ValueError(f"expected an array of bool or float32 in a position, got {value['dtype']!r}")
    return np.frombuffer(data, np.float32).reshape(shape).copy()


def _chosen(value: Any) -> Chosen | None:
    return None if value is None else Chosen(by=value["by"], lessons=value["lessons"], kept=_array(value["kept"]))
