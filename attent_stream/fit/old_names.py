"""Arguments of before 0.2, which are taken for one release with a warning."""

import logging
from collections.abc import Mapping
from typing import Any, TypedDict

from composer import Algorithm

from attent_stream.base.registry import nearest
from attent_stream.effects.resolution import ProgressiveResolution
from attent_stream.fit.algorithms import ALGORITHMS

log = logging.getLogger(__name__)


class OldNames(TypedDict, total=False):
    """The old names, for signatures."""

    record: Any
    ledger: Any
    balance: Any
    seq_len: Any
    fidelity: Any
    head: Any
    score_batch: Any
    ceiling: Any
    reference: Any
    resolution: Any
    reweight: Any
    positions: Any
    backward: Any


_OLD = {
    "record": "remember: {when: ...}",
    "ledger": "remember: {per: ..., limit: ..., detrend: ...}",
    "balance": "arrange: {balance: ...}",
    "seq_len": "arrange: {pieces: ...}",
    "fidelity": "scoring: {fidelity: ...}",
    "head": "scoring: {head: ...}",
    "score_batch": "scoring: {batch: ...}",
    "ceiling": "scoring: {ceiling: ...}",
    "reference": "scoring: {reference: ...}",
    "resolution": "the algorithm progressive_resolution: {share: ...}",
    "reweight": "the algorithm reweight: {strategy: ..., r: ...}",
    "positions": "the algorithm kept_positions: {share: ...}",
}
_GONE = {"backward": 1.0}
_IN_SCORING = {
    "fidelity": "fidelity",
    "head": "head",
    "score_batch": "batch",
    "ceiling": "ceiling",
    "reference": "reference",
}


def renamed(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Algorithm]]:
    """Arguments by their new names.

    Args:
        old: Arguments that AtteNT does not know, as given.
        new: Those that it knows, as given.

    Returns:
        Arguments of ``parse_settings``, and algorithms beside AtteNT for settings that were its
        own.

    Raises:
        TypeError: An argument that there never was.
        ValueError: One that has gone, or one that is given by both names.
    """
    given = dict(new)
    for name, value in old.items():
        if name in _GONE:
            if value == _GONE[name]:
                continue
            raise ValueError(
                f"{name} has gone, as it lost in every run (docs/log.md): leave it away"
            )
        if name not in _OLD:
            raise TypeError(f"AtteNT has no argument {name!r}, {nearest(name, [*new, *_OLD])}")
    # None was the default of all but head, where it is a setting.
    old = {k: v for k, v in old.items() if k in _OLD and (v is not None or k == "head")}
    if given.get("select") == "auto":
        log.warning("AtteNT: select: auto is the default now: leave it away.")
        given["select"] = None
    for name in old:
        log.warning(
            "AtteNT: %s has a new name, and goes in the next release: use %s.", name, _OLD[name]
        )
    remember = _remembered(old)
    scoring = {_IN_SCORING[name]: value for name, value in old.items() if name in _IN_SCORING}
    arrange, without = _arranged(old)
    for name, value in (("remember", remember), ("scoring", scoring), ("arrange", arrange)):
        if value and given.get(name) is not None:
            raise ValueError(f"{name} cannot be given together with its old names")
        given[name] = value if value else given.get(name)
    # By the old names each arrangement had a default of its own.
    given |= {"without": without, "joined": bool(arrange)}
    beside: list[Algorithm] = []
    if old.get("resolution", 1.0) != 1.0:
        beside.append(ProgressiveResolution(share=old["resolution"]))
    if "reweight" in old:
        value = old["reweight"]
        settings = {"strategy": value} if isinstance(value, str) else value
        if not isinstance(settings, Mapping):
            raise ValueError(f"reweight must be a strategy or {{strategy, r}}, got {value!r}")
        try:
            beside.append(ALGORITHMS.get("reweight")(**settings))
        except TypeError as error:
            raise ValueError(f"reweight must be {{strategy, r}}, got {value!r}") from error
    if old.get("positions", 1.0) != 1.0:
        beside.append(
            ALGORITHMS.get("kept_positions")(
                share=old["positions"],
                warmup=given["warmup"],
                anneal=given["anneal"] or "0ba",
                seed=given["seed"],
            )
        )
    return given, beside


def _remembered(old: Mapping[str, Any]) -> dict[str, Any]:
    ledger = old.get("ledger", {})
    remember = {"per": ledger} if isinstance(ledger, str) else dict(ledger)
    decay = remember.pop("decay", 0.0)
    if decay:
        raise ValueError(
            "ledger.decay has gone, as it lost in every run (docs/log.md): leave it away"
        )
    if "record" in old:
        remember["when"] = old["record"]
    return remember


def _arranged(old: Mapping[str, Any]) -> tuple[dict[str, Any] | None, frozenset[str]]:
    """The arrangements that were asked for, and those that the default is to leave out.

    Where one is turned off and the other is not given, the other stays the default of the run.
    """
    names = {"seq_len": "pieces", "balance": "balance"}
    given = {new: old[name] for name, new in names.items() if name in old}
    off = {new for new, value in given.items() if value in ("none", 1, 1.0)}
    on = {new: value for new, value in given.items() if new not in off}
    return on or None, frozenset(off)
