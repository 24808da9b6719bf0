"""Check plain values against type hints, and report each mistake with the path of its key."""

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from typing_extensions import Unpack

from attent_stream.base.redaction import masked, masked_text
from attent_stream.base.registry import closest


class ConfigError(ValueError):
    """A configuration mistake; the message starts with the key's path and masks secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


def join(path: str, key: object) -> str:
    """Return the dotted path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else str(key)


def nearest(name: object, names: Iterable[str]) -> str:
    """Suggest the closest of ``names``, or list all of them if none is close."""
    known = sorted(names)
    close = closest(name, known)
    if close is not None:
        return f"did you mean {close!r}?"
    return f"expected one of {', '.join(known)}" if known else "no key is expected here"


def choose(name: object, table: Mapping[str, Any], path: str, what: str) -> Any:
    """Return ``table[name]``, or raise ConfigError with the nearest and all known names."""
    if isinstance(name, str) and name in table:
        return table[name]
    hint = nearest(name, table)
    listing = "" if hint.startswith("expected") else f" (known: {', '.join(sorted(table))})"
    raise ConfigError(f"{path}: unknown {what} {name!r}, {hint}{listing}")


def refuse_unknown(given: Iterable[object], known: Iterable[str], path: str) -> None:
    """Raise ConfigError for the first key of ``given`` that is not in ``known``."""
    names = list(known)
    for key in given:
        if key not in names:
            raise ConfigError(f"{join(path, key)}: unknown key, {nearest(key, names)}")


def describe_hint(hint: Any) -> str:
    """Describe a type hint in words, such as ``int or 'auto'``."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        shown = [
            describe_hint(member) for member in typing.get_args(hint) if member is not type(None)
        ]
        return " or ".join(dict.fromkeys(shown))
    if origin is Literal:
        return " or ".join(repr(value) for value in typing.get_args(hint))
    if hint is type(None):
        return "null"
    if origin is not None and inspect.isclass(origin):
        hint = origin
    if inspect.isclass(hint):
        if dataclasses.is_dataclass(hint) or issubclass(hint, collections.abc.Mapping):
            return "mapping"
        if not issubclass(hint, str) and issubclass(hint, collections.abc.Sequence):
            return "list"
        return hint.__name__
    return str(hint)


def describe_value(value: object) -> str:
    """Describe a value with its type, shortened."""
    if value is None:
        return "null"
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _wrong(value: object, hint: Any, path: str) -> ConfigError:
    key = path.rpartition(".")[2].partition("[")[0]
    return ConfigError(
        f"{path or 'the file'}: expected {describe_hint(hint)}, got "
        f"{describe_value(masked(value, key))}"
    )


def typed(value: Any, hint: Any, path: str = "") -> Any:
    """Convert a plain value to the type of ``hint``, and mappings to dataclasses.

    A float may be given as an int, an int as a whole float (``1e6``) and a tuple as a list. Hints
    of other classes, such as Composer's ``Time``, accept any value: the constructor checks it.

    Args:
        value: None, bool, int, float, str, list or mapping.
        hint: The expected type.
        path: The value's key path, for messages.

    Raises:
        ConfigError: The value has another type.
    """
    if hint is Any or isinstance(hint, typing.TypeVar | str):
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _typed_union(value, hint, path)
    if origin is Literal:
        if value in arguments and type(value) in {type(known) for known in arguments}:
            return value
        names = [known for known in arguments if isinstance(known, str)]
        if isinstance(value, str) and names:
            raise ConfigError(
                f"{path}: unknown value {value!r}, {nearest(value, names)} (known: "
                f"{', '.join(names)})"
            )
        raise _wrong(value, hint, path)
    kind = origin if origin is not None else hint
    if not inspect.isclass(kind):
        return value
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(value, kind, path)
    if kind in (bool, int, float, str, type(None)):
        return _typed_scalar(value, kind, path)
    if kind in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        element = arguments[1] if len(arguments) == 2 else Any
        return {key: typed(item, element, join(path, key)) for key, item in value.items()}
    if kind in (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable):
        return _typed_sequence(value, hint, kind, arguments, path)
    return value


def _typed_scalar(value: Any, kind: type, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(value, kind, path)


def _typed_union(value: Any, hint: Any, path: str) -> Any:
    for member in typing.get_args(hint):
        exact = typing.get_origin(member) or member
        if inspect.isclass(exact) and type(value) is exact and not typing.get_args(member):
            return value
    failures = []
    for member in typing.get_args(hint):
        try:
            return typed(value, member, path)
        except ConfigError as error:
            failures.append((member, error))
    # An error from inside a section is more precise than "expected mapping or list".
    for member, error in failures:
        container = typing.get_origin(member) or member
        if inspect.isclass(container) and isinstance(value, Mapping | list):
            fits_mapping = isinstance(value, Mapping) and describe_hint(member) == "mapping"
            if fits_mapping or (isinstance(value, list) and describe_hint(member) == "list"):
                raise error
    options = [member for member in typing.get_args(hint) if member is not type(None)]
    if len(options) == 1:
        raise typing.cast(
            ConfigError, next(error for member, error in failures if member is options[0])
        )
    raise _wrong(value, hint, path)


def _typed_sequence(value: Any, hint: Any, kind: type, arguments: tuple, path: str) -> Any:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _wrong(value, hint, path)
    if kind is tuple and arguments and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise ConfigError(
                f"{path}: expected a list of {len(arguments)} values, got {describe_value(value)}"
            )
        return tuple(
            typed(item, element, f"{path}[{i}]")
            for i, (item, element) in enumerate(zip(value, arguments, strict=True))
        )
    element = arguments[0] if arguments else Any
    items = [typed(item, element, f"{path}[{i}]") for i, item in enumerate(value)]
    return tuple(items) if kind is tuple else items


def _typed_dataclass(value: Any, kind: type, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(value, kind, path)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    refuse_unknown(value, fields, path)
    settings = {key: typed(item, hints[key], join(path, key)) for key, item in value.items()}
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in settings:
            raise ConfigError(f"{join(path, name)}: missing, expected {describe_hint(hints[name])}")
    try:
        return kind(**settings)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


_BASES = ("composer.core.algorithm", "composer.core.callback")


def checked_arguments(
    factory: Callable, given: Mapping[str, Any], path: str, supplied: Iterable[str] = ()
) -> dict[str, Any]:
    """Check arguments against a signature and convert them to its types.

    Args:
        factory: The class or function to call.
        given: Arguments by name.
        path: The key path of ``given``, for messages.
        supplied: Names of the parameters that the caller passes itself.

    Raises:
        ConfigError: A name is unknown or missing, or a value has the wrong type.
    """
    ours = set(supplied)
    parameters = {
        name: p for name, p in inspect.signature(factory).parameters.items() if name not in ours
    }
    named = [
        name
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    # Composer's base classes accept and drop any keyword: a class without a constructor of its own
    # has no settings.
    inherited = inspect.isclass(factory) and factory.__init__.__module__ in _BASES
    takes_any = not inherited and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(factory)
    more = next((hint for hint in hints.values() if get_origin(hint) is Unpack), None)
    listed = [] if more is None else list(get_args(more)[0].__annotations__)
    if listed or not takes_any:
        refuse_unknown(given, [*named, *listed], path)
    for name in named:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            expected = f", expected {describe_hint(hints[name])}" if name in hints else ""
            raise ConfigError(f"{join(path, name)}: missing{expected}")
    checked = {}
    for name, value in given.items():
        hint = hints.get(name, Any)
        if value is None and name in parameters and parameters[name].default is None:
            hint = Any  # Older code writes `x: int = None` for an optional int.
        checked[name] = typed(value, hint, join(path, name))
    return checked


def _hints(factory: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):
        return {}  # Some names are imported for type checkers only: the constructor checks values.
