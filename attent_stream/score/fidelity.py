"""How much of a sample, and of the model, a score looks at: the settings of ``fidelity``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from attent_stream.base.errors import FidelityError
from attent_stream.base.registry import Registry, closest

TAKES = ("strided", "first")  # which tokens of a sample are used
PRECISIONS = ("amp_bf16",)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A share of a sample's tokens.

    Args:
        share: In (0, 1).
        take: ``strided``: the model sees all tokens, and an evenly spaced share of the labeled ones
            goes through the output head. ``first``: the sample is cut to this share of its length,
            which saves compute in the blocks too.
    """

    share: float
    take: str = "strided"

    def __post_init__(self) -> None:
        check_share("tokens.share", self.share)
        if self.take not in TAKES:
            raise FidelityError(
                f"fidelity.tokens.take: expected one of {', '.join(TAKES)}, received {self.take!r}"
            )


# The options of a fidelity that have a class of their own
OPTIONS: Registry[Any] = Registry("fidelity", {"tokens": Tokens})


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """One way to score. The options compose, and an option that is None changes nothing.

    Args:
        layers: Run only this many of the model's blocks, then its final norm and head.
        tokens: Use a share of a language model's tokens.
        resolution: Side of an image over its full side, in (0, 1). Position embeddings are
            interpolated.
        patches: Share of an image's patches that a ViT sees, in (0, 1), drawn for each window (on
            trial).
        precision: ``amp_bf16``: score under bfloat16 autocast, whatever training uses.
        proxy: ``ProxySettings`` of another model that scores (on trial).
    """

    layers: int | None = None
    tokens: Tokens | None = None
    resolution: float | None = None
    patches: float | None = None
    precision: str | None = None
    proxy: Any = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            check_integer("layers", self.layers)
        for name in ("resolution", "patches"):
            if getattr(self, name) is not None:
                check_share(name, getattr(self, name))
        if self.precision is not None and self.precision not in PRECISIONS:
            raise FidelityError(
                f"fidelity.precision: expected one of {', '.join(PRECISIONS)}, received "
                f"{self.precision!r}"
            )
        if self.tokens is not None and (self.resolution or self.patches):
            raise FidelityError(
                "fidelity: expected tokens (of text) or resolution and patches (of images), "
                "received both"
            )

    @property
    def full(self) -> bool:
        """Whether nothing is left out."""
        return self == FULL

    @property
    def name(self) -> str:
        """Name for metrics and logs, such as ``layers_2_strided_0.125``."""
        words = [] if self.layers is None else [f"layers_{self.layers}"]
        if self.tokens is not None:
            words.append(f"{self.tokens.take}_{self.tokens.share:g}")
        for name in ("resolution", "patches"):
            if getattr(self, name) is not None:
                words.append(f"{name}_{getattr(self, name):g}")
        words += [self.precision] if self.precision else []
        words += ["proxy"] if self.proxy else []
        return "_".join(words) or "full"


FULL = Fidelity()


@dataclass(frozen=True, kw_only=True)
class AutoFidelity:
    """Measure which way of scoring is good enough; see ``auto_fidelity``.

    Args:
        agreement: Least rank correlation (Spearman) with the full score, in (0, 1).
        every: Scored windows from one measurement to the next.
        samples: Candidates on all ranks that are scored in every way, at least 32. A window with
            fewer candidates gives fewer.
        ways: The ways to try. None: those of ``auto_fidelity.usual_ways``.
    """

    agreement: float = 0.9
    every: int = 16
    samples: int = 256
    ways: tuple[Fidelity, ...] | None = None

    def __post_init__(self) -> None:
        check_share("auto.agreement", self.agreement)
        check_integer("auto.every", self.every)
        check_integer("auto.samples", self.samples, least=32)
        if self.ways is None:
            return
        names = [way.name for way in self.ways]
        if not self.ways or any(way.proxy or way.full for way in self.ways):
            raise FidelityError(
                "fidelity.auto.ways: expected at least one way, each less than full and without a "
                f"proxy, received {names}"
            )
        if len(set(names)) < len(names):
            raise FidelityError(f"fidelity.auto.ways: expected each way once, received {names}")


def parse_fidelity(value: Any) -> Fidelity | AutoFidelity:
    """Read the ``fidelity`` setting.

    Args:
        value: ``full``, ``auto``, ``{auto: {agreement, every, samples, ways}}``, or a mapping of
            ``Fidelity``'s options.

    Raises:
        FidelityError: Anything else.
    """
    if isinstance(value, (Fidelity, AutoFidelity)):
        return value
    if value == "full":
        return FULL
    if value == "auto":
        return AutoFidelity()
    if not isinstance(value, Mapping):
        raise FidelityError(
            f"fidelity: expected full, auto, or a mapping of {', '.join(_names(Fidelity))}, "
            f"received {value!r}"
        )
    if "auto" in value:
        if len(value) > 1:
            others = [name for name in value if name != "auto"]
            raise FidelityError(
                "fidelity: expected auto alone or other options, received auto with "
                f"{', '.join(others)}"
            )
        settings = dict(_mapping(AutoFidelity, value["auto"] or {}, "fidelity.auto"))
        if settings.get("ways") is not None:
            if not isinstance(settings["ways"], (list, tuple)):
                raise FidelityError(
                    "fidelity.auto.ways: expected a list of mappings, received "
                    f"{settings['ways']!r}"
                )
            settings["ways"] = tuple(
                _fidelity(way, f"fidelity.auto.ways[{i}]") for i, way in enumerate(settings["ways"])
            )
        return AutoFidelity(**settings)
    return _fidelity(value, "fidelity")


def _fidelity(value: Any, where: str) -> Fidelity:
    if isinstance(value, Fidelity):
        return value
    options = dict(_mapping(Fidelity, value, where))
    for name in ("tokens", "proxy"):
        given = options.get(name)
        if given is not None and not isinstance(given, kind := OPTIONS.get(name)):
            first = fields(kind)[0].name
            settings = _mapping(kind, given, f"{where}.{name}")
            if first not in settings:
                raise FidelityError(
                    f"{where}.{name}: expected {first}, received {', '.join(settings) or 'nothing'}"
                )
            options[name] = kind(**settings)
    return Fidelity(**options)


def _mapping(kind: type, value: Any, where: str) -> Mapping[str, Any]:
    names = _names(kind)
    if not isinstance(value, Mapping):
        raise FidelityError(
            f"{where}: expected a mapping of {', '.join(names)}, received {value!r}"
        )
    for name in value:
        if name not in names:
            close = closest(name, names)
            hint = f" (did you mean {close}?)" if close is not None else ""
            raise FidelityError(f"{where}: expected {', '.join(names)}, received {name!r}{hint}")
    return value


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def check_share(name: str, value: Any) -> None:
    """Raise FidelityError unless the value is in (0, 1)."""
    check_number(name, value, above=0.0)
    if not value < 1:
        raise FidelityError(
            f"fidelity.{name}: expected a number above 0 and below 1, received {value!r}"
        )


def check_number(
    name: str, value: Any, *, above: float | None = None, least: float | None = None
) -> None:
    """Raise FidelityError unless the value is a finite number within its bound."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not good
        or (above is not None and not value > above)
        or (least is not None and value < least)
    ):
        bound = f"above {above:g}" if above is not None else f"of at least {least:g}"
        raise FidelityError(f"fidelity.{name}: expected a number {bound}, received {value!r}")


def check_integer(name: str, value: Any, *, least: int = 1) -> None:
    """Raise FidelityError unless the value is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FidelityError(
            f"fidelity.{name}: expected an integer of at least {least}, received {value!r}"
        )
