"""The output head of a model: the module that makes the logits, and what follows it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, Module

from attent_stream.model.wrapping import is_compiled, unwrap

# Names in Hugging Face's configurations for what happens to the logits after the head
_FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere, llm-foundry's MPT; Falcon-H1
_DIVISORS = ("logits_scaling",)  # Granite
# Gemma 2 and 3; RecurrentGemma; xLSTM
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


class HeadError(ValueError):
    """Why a model cannot be scored without its logits."""


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """Where a model's logits come from.

    Args:
        module: Makes the logits from the final hidden states, by one matrix product with its
            ``weight`` (V, D) and an optional ``bias`` (V,). The parameters of a sharded model are
            whole only within its forward.
        classes: V.
        after: What may happen to the logits afterwards, as (scale, softcap), most likely first. The
            configuration is not certain: MPT's has a ``logit_scale`` that Hugging Face's model
            does not use.
    """

    module: Module
    classes: int
    after: tuple[tuple[float, float | None], ...]

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype in which autocast computes the logits. None where autocast is off."""
        device = self.module.weight.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def operands(self) -> tuple[Tensor, Tensor | None]:
        """The current weight and bias."""
        return self.module.weight, getattr(self.module, "bias", None)


def find_head(model: Module) -> OutputHead:
    """Find the output head of a Hugging Face model in a ComposerModel, wrapped or not.

    Raises:
        HeadError: There is none, or it computes something unknown.
    """
    inner = unwrap(model)
    language_model = unwrap(getattr(inner, "model", inner))
    getter = getattr(language_model, "get_output_embeddings", None)
    module = getter() if callable(getter) else None
    if not isinstance(module, Module):
        raise HeadError(f"{type(language_model).__name__} names no output embedding")
    if is_compiled(model):
        raise HeadError("the model is compiled, and what is compiled cannot be left early")
    module = unwrap(module)
    plain = isinstance(module, Linear) and type(module).forward is Linear.forward
    if not (plain or _unembeds(module)) or "forward" in vars(module):
        raise HeadError(
            f"its output embedding is a {type(module).__name__} with a forward of its own, not "
            "torch.nn.Linear"
        )
    config = getattr(language_model, "config", None)
    classes = module.out_features if plain else module.num_embeddings
    return OutputHead(module=module, classes=classes, after=_after(config))


def hidden_states(args: tuple, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Hidden states in a call of the head's module. None for a call that looks up embeddings."""
    first = args[0] if args else kwargs.get("input")
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


def _unembeds(module: Module) -> bool:
    """llm-foundry's embedding that is its own head: ``forward(input, unembed)``."""
    return (
        isinstance(module, Embedding)
        and "unembed" in inspect.signature(type(module).forward).parameters
    )


def _after(config: Any) -> tuple[tuple[float, float | None], ...]:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    scale = 1.0
    for name in _FACTORS:
        scale *= _number(text, name) or 1.0
    for name in _DIVISORS:
        scale /= _number(text, name) or 1.0
    if getattr(text, "logit_scale", None) == "inv_sqrt_d_model":  # llm-foundry
        scale *= text.d_model**-0.5
    caps = [cap for name in _CAPS if (cap := _number(text, name))]
    after = (
        [(scale, cap) for cap in caps]
        + [(scale, None)]
        + [(1.0, cap) for cap in caps]
        + [(1.0, None)]
    )
    return tuple(dict.fromkeys(after))


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    positive = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    )
    return float(value) if positive else None
