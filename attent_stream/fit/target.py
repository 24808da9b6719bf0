"""The setting ``target``: a small data set that says what the model should be good at."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from streaming import Stream

from attent_stream.base.registry import nearest
from attent_stream.base.remote import is_remote


@dataclass(frozen=True, kw_only=True)
class TargetStream:
    """A stream of the target, in Streaming's MDS format.

    Args:
        remote: Where it is: a folder, or a URL of an object store.
        local: Where its shards are cached; None: in the system's temporary folder. Not used where
            ``remote`` is a folder.
        split: Sub-folder of both.
        weight: Its share of the target is this over the sum of all weights; None: by its size.

    Raises:
        ValueError: A value has the wrong type, or is out of range.
    """

    remote: str | None = None
    local: str | None = None
    split: str | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        for name in ("remote", "local", "split"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"target.{name} must be a path, got {value!r}")
        if self.remote is None and self.local is None:
            raise ValueError("target needs remote or local, got neither")
        weight = self.weight
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if weight is not None and not (number and 0 < float(weight) < float("inf")):
            raise ValueError(f"target.weight must be a positive number, got {weight!r}")

    @property
    def place(self) -> str:
        """Where its samples come from, in one way of writing."""
        return place(self.remote or self.local or "", self.split)

    def opened(self) -> Stream:
        """The stream for a data set.

        Raises:
            ValueError: A folder is missing, or the one to cache in is another user's.
        """
        source = self.remote or self.local or ""
        if is_remote(source):
            return Stream(remote=source, local=self.local or self._cache(), split=self.split)
        folder = os.path.join(source, self.split or "")
        if not os.path.isfile(os.path.join(folder, "index.json")):
            raise ValueError(f"expected an MDS data set with an index.json in {folder!r}, got none")
        return Stream(local=source, split=self.split)

    def _cache(self) -> str:
        name = hashlib.sha256(self.place.encode()).hexdigest()[:16]
        path = os.path.join(tempfile.gettempdir(), f"attent_target_{os.getuid()}_{name}")
        os.makedirs(path, mode=0o700, exist_ok=True)
        if os.stat(path).st_uid != os.getuid():
            raise ValueError(f"{path} is another user's: set target.local to a folder of your own")
        return path


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target.

    Args:
        streams: Its streams; either all have a weight or none.

    Raises:
        ValueError: No stream, or only some have a weight.
    """

    streams: tuple[TargetStream, ...]

    def __post_init__(self) -> None:
        if not self.streams:
            raise ValueError("target needs at least one stream, got none")
        given = [stream.weight is not None for stream in self.streams]
        if any(given) and not all(given):
            raise ValueError("target.weight must be given for all streams or for none")

    @classmethod
    def parse(cls, value: Any) -> "Target | None":
        """From a path, a mapping of ``TargetStream``'s arguments, a list of these, or None.

        Raises:
            ValueError: Anything else, or a value out of range.
        """
        if value is None:
            return None
        several = isinstance(value, Sequence) and not isinstance(value, str)
        return cls(streams=tuple(_stream(one) for one in (value if several else [value])))


def place(source: str, split: str | None) -> str:
    """A folder or URL in one way of writing, to compare."""
    joined = os.path.join(source, split or "")
    return joined.rstrip("/") if "://" in joined else os.path.realpath(joined)


def _stream(value: Any) -> TargetStream:
    if isinstance(value, str):
        return TargetStream(remote=value)
    names = [field.name for field in fields(TargetStream)]
    if not isinstance(value, Mapping):
        raise ValueError(
            f"target must be a path, a mapping of {', '.join(names)}, or a list of these, got "
            f"{value!r}"
        )
    for name in value:
        if name not in names:
            raise ValueError(f"target has no {name!r}, {nearest(name, names)}")
    return TargetStream(**value)
