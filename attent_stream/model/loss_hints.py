"""Settings of a model's loss: the ignored class and the label smoothing."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.nn import Module

from attent_stream.model.wrapping import unwrap

# Common values, tried after those that the model names
_SMOOTHING = (0.1, 0.05, 0.2, 0.15, 0.01, 0.3)


@dataclass(frozen=True, kw_only=True)
class LossHints:
    """Likely settings of a loss.

    Args:
        ignored: Values of ``ignore_index``, most likely first.
        smoothing: Values of ``label_smoothing`` in (0, 1), most likely first.
        auxiliary: Factor of the outputs' ``aux_loss`` (mixtures of experts), or 0.
    """

    ignored: tuple[int, ...] = ()
    smoothing: tuple[float, ...] = _SMOOTHING
    auxiliary: float = 0.0

    @classmethod
    def of(cls, model: Module) -> "LossHints":
        """Read them from a model, wrapped or not."""
        ignored, smoothing = [], []
        for known in _settings(unwrap(model)):
            if isinstance(known.get("ignore_index"), int):
                ignored.append(known["ignore_index"])
            value = known.get("label_smoothing")
            if isinstance(value, (int, float)) and 0 < value < 1:
                smoothing.append(float(value))
        config = getattr(unwrap(model), "config", None)
        return cls(
            ignored=tuple(dict.fromkeys(ignored)),
            smoothing=(*dict.fromkeys(smoothing), *_SMOOTHING),
            auxiliary=float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0),
        )


def _settings(model: Module) -> Iterator[dict[str, Any]]:
    """Keywords of the partials and attributes of the loss modules in a model."""
    for value in vars(model).values():
        known: dict[str, Any] = {}
        while isinstance(value, functools.partial):
            known = {**value.keywords, **known}
            value = value.func
        if known:
            yield known
        elif callable(value) and not isinstance(value, (type, Module)):
            yield dict(getattr(value, "__dict__", {}))
    for module in model.modules():
        if "ignore_index" in vars(module) or "label_smoothing" in vars(module):
            yield vars(module)
