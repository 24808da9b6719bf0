"""The cheap scoring methods that ``bench_fidelity.py`` compares."""

from collections.abc import Callable

import torch

from attent_stream.experimental.proxy import ProxySettings
from attent_stream.score.fidelity import FULL, Fidelity, parse_fidelity


def lm_ways(layers: int, quick: bool = False) -> list[Fidelity]:
    """List methods for a language model with this many layers, only a few if ``quick``."""
    if quick:
        some = [{"layers": n, **part} for n in (1, 2) for part in ({}, {"tokens": {"share": 0.25}})]
        return [FULL, *map(parse_fidelity, [*some, {"tokens": {"share": 0.25}}])]
    given: list[dict] = [{"tokens": {"share": share}} for share in (0.0625, 0.125, 0.25)]
    given += [{"tokens": {"share": 0.25, "take": "first"}}]
    for count in sorted({1, 2, max(3, layers // 4), layers // 2} - {layers}):
        given += [
            {"layers": count},
            *({"layers": count, "tokens": {"share": share}} for share in (0.0625, 0.125, 0.25)),
        ]
    given += [{"layers": layers // 2, "tokens": {"share": 0.25, "take": "first"}}]
    return [FULL, *map(parse_fidelity, given)]


def vit_ways(layers: int, quick: bool = False) -> list[Fidelity]:
    """List methods for a ViT with this many layers, only a few if ``quick``."""
    if quick:
        some = [
            {"layers": layers // 2},
            {"layers": layers // 2, "patches": 0.25},
            {"patches": 0.25},
            {"resolution": 0.5},
        ]
        return [FULL, *map(parse_fidelity, some)]
    early = [
        {"layers": count} for count in sorted({max(1, layers // 4), layers // 2, 3 * layers // 4})
    ]
    given = [
        *early,
        *({"patches": share} for share in (0.125, 0.25, 0.5)),
        {"resolution": 0.5},
        {"resolution": 0.75},
    ]
    given += [{**part, "patches": share} for part in early[1:] for share in (0.25, 0.5)]
    given += [{"layers": layers // 2, "resolution": 0.75}, {"resolution": 0.5, "patches": 0.5}]
    return [FULL, *map(parse_fidelity, given)]


WAYS: dict[str, Callable[[int, bool], list[Fidelity]]] = {"lm": lm_ways, "vit": vit_ways}


def proxy_settings(model: torch.nn.Module) -> ProxySettings:
    """Return settings of a proxy that trains on one lesson batch in four."""
    return ProxySettings(model=model, train=True, every=4, lr=3e-3)


def proxy_ways(kind: str, settings: ProxySettings, quick: bool = False) -> list[Fidelity]:
    """List methods with a proxy, only one if ``quick``."""
    parts: dict[str, list[dict]] = {
        "lm": [
            {"tokens": {"share": 0.25}},
            {"tokens": {"share": 0.125}},
            {"tokens": {"share": 0.5}},
            {},
        ],
        "vit": [{}, {"patches": 0.5}, {"patches": 0.25}],
    }
    return [
        parse_fidelity({**part, "proxy": settings}) for part in parts[kind][: 1 if quick else None]
    ]


def scoring_model(way: Fidelity, model: torch.nn.Module) -> torch.nn.Module:
    """Return the scoring model of a method: the model, or its proxy."""
    return model if way.proxy is None else way.proxy.model
