"""How much of a sample, and of the model, a score looks at: the settings of ``fidelity``."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from attent_stream.base.errors import FidelityError

TAKES = ("strided", "first")  # which tokens a share of them is
PRECISIONS = ("amp_bf16",)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A share of a sample's tokens.

    Args:
        share: In (0, 1).
        take: ``strided``: the model sees all, and of the tokens with a label this share, evenly
            spaced, goes through the output head. ``first``: the sample is cut behind this share of
            its length, which also saves in the blocks.
    """

    share: float
    take: str = "strided"

    def __post_init__(self) -> None:
        _share("tokens.share", self.share)
        if self.take not in TAKES:
            raise FidelityError(
                f"fidelity.tokens.take: expected one of {', '.join(TAKES)}, received {self.take!r}"
            )


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """A small model that scores in the learner's place.

    Args:
        model: A folder with a Hugging Face model (``config.json`` and safetensors weights), the
            keys of a ``model`` section (``name``, ``architecture``, ``config_overrides``) for one
            with random weights, or a ComposerModel.
        train: Whether it learns along, by steps on lesson batches.
        every: Lesson batches, of which it learns on one.
        lr: Learning rate of its AdamW.
        weight_decay: Of its AdamW.
    """

    model: Any
    train: bool = False
    every: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not (
            isinstance(self.model, (str, Mapping))
            or callable(getattr(self.model, "eval_forward", None))
        ):
            raise FidelityError(
                "fidelity.proxy.model: expected a folder, the keys of a model section or a "
                "ComposerModel, received "
                f"{type(self.model).__name__}"
            )
        if not isinstance(self.train, bool):
            raise FidelityError(
                f"fidelity.proxy.train: expected true or false, received {self.train!r}"
            )
        _whole("proxy.every", self.every)
        _number("proxy.lr", self.lr, above=0.0)
        _number("proxy.weight_decay", self.weight_decay, least=0.0)
        if isinstance(self.model, Mapping) and not self.train:
            raise FidelityError(
                "fidelity.proxy.train: expected true for a model that starts with random weights, "
                "received false"
            )


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """One way to score; what is None is as in a full forward, and the parts compose.

    Args:
        layers: Leave the model after so many of its blocks, by its own final norm and head.
        tokens: Of a language model's sample.
        resolution: Side of an image over its full one, in (0, 1); position embeddings are
            interpolated.
        patches: Share of an image's patches that a ViT sees, drawn at random for each window, in
            (0, 1).
        precision: ``amp_bf16``: score under bfloat16 autocast whatever training does.
        proxy: Another model scores.
    """

    layers: int | None = None
    tokens: Tokens | None = None
    resolution: float | None = None
    patches: float | None = None
    precision: str | None = None
    proxy: ProxySettings | None = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            _whole("layers", self.layers)
        for name in ("resolution", "patches"):
            if getattr(self, name) is not None:
                _share(name, getattr(self, name))
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
        """In metrics and logs, such as ``layers_2_strided_0.125``."""
        parts = [] if self.layers is None else [f"layers_{self.layers}"]
        if self.tokens is not None:
            parts.append(f"{self.tokens.take}_{self.tokens.share:g}")
        for name in ("resolution", "patches"):
            if getattr(self, name) is not None:
                parts.append(f"{name}_{getattr(self, name):g}")
        parts += [self.precision] if self.precision else []
        parts += ["proxy"] if self.proxy else []
        return "_".join(parts) or "full"


FULL = Fidelity()


@dataclass(frozen=True, kw_only=True)
class AutoFidelity:
    """Find out by measurement which way is good enough; see ``agreement``.

    Args:
        agreement: Least rank correlation (Spearman) with the full score, in (0, 1).
        every: Scored windows from one measurement to the next.
        samples: Candidates of all ranks together that are scored in every way, at least 32; fewer
            where a window has fewer.
        ways: What to try, or None for the usual ways of the model's kind
            (``agreement.usual_ways``).
    """

    agreement: float = 0.9
    every: int = 16
    samples: int = 256
    ways: tuple[Fidelity, ...] | None = None

    def __post_init__(self) -> None:
        _share("auto.agreement", self.agreement)
        _whole("auto.every", self.every)
        _whole("auto.samples", self.samples, least=32)
        if self.ways is not None and (
            not self.ways or any(way.proxy or way.full for way in self.ways)
        ):
            raise FidelityError(
                "fidelity.auto.ways: expected at least one way, each less than full and without a "
                "proxy, received "
                f"{[way.name for way in self.ways]}"
            )
        if self.ways is not None and len({way.name for way in self.ways}) < len(self.ways):
            raise FidelityError(
                "fidelity.auto.ways: expected each way once, received "
                f"{[way.name for way in self.ways]}"
            )


def parse_fidelity(value: Any) -> Fidelity | AutoFidelity:
    """``full``, ``auto``, ``{auto: {agreement, every, samples, ways}}``, or a mapping of
    ``Fidelity``'s parts.

    Raises:
        FidelityError: Anything else; names what was expected and received.
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
                "fidelity: expected auto alone or other parts, received auto with "
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
                _parts(way, f"fidelity.auto.ways[{i}]") for i, way in enumerate(settings["ways"])
            )
        return AutoFidelity(**settings)
    return _parts(value, "fidelity")


def _parts(value: Any, where: str) -> Fidelity:
    if isinstance(value, Fidelity):
        return value
    parts = dict(_mapping(Fidelity, value, where))
    for name, kind in (("tokens", Tokens), ("proxy", ProxySettings)):
        given = parts.get(name)
        if given is not None and not isinstance(given, kind):
            first = fields(kind)[0].name
            settings = _mapping(kind, given, f"{where}.{name}")
            if first not in settings:
                raise FidelityError(
                    f"{where}.{name}: expected {first}, received {', '.join(settings) or 'nothing'}"
                )
            parts[name] = kind(**settings)
    return Fidelity(**parts)


def _mapping(kind: type, value: Any, where: str) -> Mapping[str, Any]:
    names = _names(kind)
    if not isinstance(value, Mapping):
        raise FidelityError(
            f"{where}: expected a mapping of {', '.join(names)}, received {value!r}"
        )
    for name in value:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise FidelityError(f"{where}: expected {', '.join(names)}, received {name!r}{hint}")
    return value


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _share(name: str, value: Any) -> None:
    _number(name, value, above=0.0)
    if not value < 1:
        raise FidelityError(
            f"fidelity.{name}: expected a number above 0 and below 1, received {value!r}"
        )


def _number(
    name: str, value: Any, *, above: float | None = None, least: float | None = None
) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not good
        or (above is not None and not value > above)
        or (least is not None and value < least)
    ):
        bound = f"above {above:g}" if above is not None else f"of at least {least:g}"
        raise FidelityError(f"fidelity.{name}: expected a number {bound}, received {value!r}")


def _whole(name: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FidelityError(
            f"fidelity.{name}: expected an integer of at least {least}, received {value!r}"
        )
