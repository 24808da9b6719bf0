"""Plug-ins by name: a table, those on trial, and a user's own as ``package.module:name``."""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def closest(name: object, names: Iterable[str]) -> str | None:
    """The known name that is most like a wrong one; None where none is."""
    close = difflib.get_close_matches(str(name), list(names), n=1)
    return close[0] if close else None


def nearest(name: object, names: Iterable[str]) -> str:
    """The known names in words, and the closest of them first where one is close.

    Args:
        name: What was given.
        names: What is known.
    """
    known = list(names)
    close = closest(name, known)
    hint = f"did you mean {close!r}? " if close is not None else ""
    return f"{hint}(known: {', '.join(known)})"


class Registry(Generic[T]):
    """Plug-ins of one kind.

    Args:
        kind: The setting that names them, for messages and to find those on trial.
        known: The plug-ins by name.
    """

    def __init__(self, kind: str, known: Mapping[str, T]) -> None:
        self.kind = kind
        self.known = dict(known)

    @property
    def names(self) -> list[str]:
        """All names, those on trial last."""
        return [*self.known, *_on_trial(self.kind)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.known or name in _on_trial(self.kind))

    def get(self, name: str) -> T:
        """The plug-in of this name.

        Args:
            name: A known one, or ``package.module:attribute`` of a user's own.

        Raises:
            ValueError: No such name, or it cannot be imported.
        """
        if not isinstance(name, str):
            known = ", ".join(self.names)
            raise ValueError(f"{self.kind} must be a name, got {name!r} (known: {known})")
        if name in self.known:
            return self.known[name]
        on_trial = _on_trial(self.kind)
        if name in on_trial:
            return imported(on_trial[name], self.kind)
        if ":" in name:
            return imported(name, self.kind)
        raise ValueError(f"{self.kind} has no {name!r}, {nearest(name, self.names)}")


def _on_trial(kind: str) -> Mapping[str, str]:
    """Names of the experimental plug-ins of a kind, and where they are."""
    return import_module("attent_stream.experimental").NAMES.get(kind, {})


def imported(path: str, kind: str) -> Any:
    """What a path such as ``package.module:attribute`` names.

    Args:
        path: The path.
        kind: The setting that names it, for messages.

    Raises:
        ValueError: It cannot be imported.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{kind}: {path!r} cannot be imported: {error}") from error
