"""Facts about a model that scoring needs."""

import functools
import re
from dataclasses import dataclass
from typing import Any

from torch.nn import Module

from attent_stream.model.reading import BINARY, PROBABILITIES, REGRESSION
from attent_stream.model.wrapping import unwrap

_POSITIONS = re.compile(r"(^|[._])(wpe|pos|position|positions|positional|pos_?embed\w*)([._]|$)")
_RELATIVE = re.compile(r"rel|bias")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Facts about a model that scoring needs.

    Args:
        shift_labels: The output at a token predicts the next token's label (causal language
            models).
        forward_args: Argument names of a Hugging Face model's forward. None for other models.
        encoder_decoder: It needs ``decoder_input_ids`` where it gets no labels.
        dense: Kind of a target of the outputs' shape: ``probabilities``, ``binary`` or
            ``regression``.
    """

    shift_labels: bool
    forward_args: frozenset[str] | None
    encoder_decoder: bool
    dense: str

    @classmethod
    def of(cls, model: Module) -> "Traits":
        """Read the traits of a model, wrapped or not."""
        inner = unwrap(model)
        # Composer's HuggingFaceModel and its subclasses
        forward_args = getattr(inner, "model_forward_args", None)
        config = getattr(inner, "config", None)
        return cls(
            shift_labels=bool(getattr(inner, "shift_labels", False)) or _is_causal(inner),
            forward_args=None if forward_args is None else frozenset(forward_args),
            encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
            dense=_dense_by_config(config) if forward_args is not None else _dense_by_loss(inner),
        )


def _is_causal(module: Module) -> bool:
    """Whether it holds a Hugging Face causal language model. Its loss shifts the labels."""
    kinds = [getattr(one, "loss_type", None) for one in module.modules()]
    known = [kind for kind in kinds if isinstance(kind, str)]
    return bool(known) and known[0] == "ForCausalLM"


def learns_positions(model: Module) -> bool:
    """Whether the model learns a vector for each absolute position, as GPT-2 and OPT do.

    Such weights are known by their names: ``wpe``, ``embed_positions``, ``pos_emb``, ... Weights
    that are not trained do not count: those of a pretrained model with LoRA are learnt already.
    """
    return any(
        weight.requires_grad
        and _POSITIONS.search(name.lower()) is not None
        and _RELATIVE.search(name.lower()) is None
        for name, weight in unwrap(model).named_parameters()
    )


def weights_trained(model: Module) -> tuple[int, int]:
    """How many weights of the model are trained, and how many there are, as this rank has them."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _dense_by_config(config: Any) -> str:
    """Choose as Hugging Face's sequence and image classifiers choose their loss."""
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or (problem is None and getattr(config, "num_labels", 1) == 1):
        return REGRESSION
    return BINARY


def _dense_by_loss(module: Module) -> str:
    """Choose by the name of a ComposerClassifier's loss function. Without one: regression."""
    name = function_name(getattr(module, "_loss_fn", None)).lower().replace("_", "")
    if name in ("binarycrossentropywithlogits", "bcewithlogitsloss"):
        return BINARY
    soft = name in ("softcrossentropy", "crossentropy", "crossentropyloss")
    return PROBABILITIES if soft else REGRESSION


def function_name(function: Any) -> str:
    """Name of a function or of the function behind a partial, else name of the object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
