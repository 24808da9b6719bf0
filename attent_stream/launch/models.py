"""Build Composer models and tokenizers from Hugging Face ones, without downloads or remote code."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from attent_stream.launch.config_check import (
    ConfigError,
    checked_arguments,
    choose,
    describe_value,
    refuse_unknown,
)
from attent_stream.launch.config_sections import ModelConfig, TokenizerConfig


class Logits(torch.nn.Module):
    """A Hugging Face image classifier that maps pixels (B, C, H, W) to logits (B, classes)."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model
        self.num_classes = model.config.num_labels

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixels).logits


def build_tokenizer(config: TokenizerConfig | None) -> Any | None:
    """Load a tokenizer from a local folder or the local Hugging Face cache.

    Raises:
        ConfigError: There is no tokenizer.
    """
    if config is None:
        return None
    from transformers import AutoTokenizer

    key, source = ("path", config.path) if config.path is not None else ("name", config.name)
    if config.path is not None and not os.path.isdir(config.path):
        raise ConfigError(f"tokenizer.path: folder {config.path!r} does not exist")
    kwargs = {**config.kwargs, "local_files_only": True, "trust_remote_code": False}
    try:
        return AutoTokenizer.from_pretrained(source, **kwargs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"tokenizer.{key}: no tokenizer can be read from {source!r} without a download, "
            f"{reason}"
        ) from error


def hf_config(model: ModelConfig, vocab_size: int | None = None) -> Any:
    """Build the Hugging Face config of a ``model`` section.

    Args:
        model: The section.
        vocab_size: The tokenizer's size in tokens, used if the section sets none.

    Raises:
        ConfigError: The architecture is unknown, or a field is unknown or has the wrong type.
    """
    from transformers import AutoConfig, PretrainedConfig

    if model.pretrained is not None:
        if not os.path.isfile(os.path.join(model.pretrained, "config.json")):
            raise ConfigError(f"model.pretrained: folder {model.pretrained!r} has no config.json")
        try:
            default = AutoConfig.from_pretrained(
                model.pretrained, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.pretrained: {str(error).splitlines()[0]}") from error
    else:
        architectures = {name: name for name in _architectures(model.name)}
        default = AutoConfig.for_model(
            choose(model.architecture, architectures, "model.architecture", "architecture")
        )
    fields = {
        **default.to_dict(),
        **{name: getattr(default, name) for name in default.attribute_map},
    }
    fields["num_labels"] = default.num_labels
    overrides = dict(model.config_overrides)
    refuse_unknown(overrides, fields, "model.config_overrides")
    for name, value in overrides.items():
        _check_field(name, value, fields[name])
    sets_vocab = {"vocab_size", default.attribute_map.get("vocab_size")} & set(overrides)
    if vocab_size is not None and "vocab_size" in fields:
        if not sets_vocab and model.pretrained is None:
            overrides["vocab_size"] = vocab_size
        held = overrides.get(next(iter(sets_vocab), "vocab_size"), fields["vocab_size"])
        if held < vocab_size:
            raise ConfigError(
                "model.config_overrides.vocab_size: expected at least the tokenizer's "
                f"{vocab_size}, "
                f"got {held}"
            )
    if model.attn_implementation is not None:
        overrides["attn_implementation"] = model.attn_implementation
    if "use_cache" in fields and "use_cache" not in overrides:
        overrides["use_cache"] = False  # Training does not read the key-value cache.
    try:
        if model.pretrained is not None:
            return AutoConfig.from_pretrained(
                model.pretrained, local_files_only=True, trust_remote_code=False, **overrides
            )
        made: PretrainedConfig = type(default)(**overrides)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"model.config_overrides: {error}") from error
    return made


def _check_field(name: str, value: Any, default: Any) -> None:
    expected = type(default)
    if default is None or value is None or expected not in (bool, int, float, str):
        return
    accepted = (int, float) if expected is float else (expected,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(
            f"model.config_overrides.{name}: expected {expected.__name__}, got "
            f"{describe_value(value)}"
        )


def _architectures(name: str) -> list[str]:
    from transformers.models.auto import modeling_auto as auto

    names = {
        "hf_causal_lm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "hf_masked_lm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "hf_image_classifier": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    }
    return list(names[name])


def _transformer(auto_class: Any, model: ModelConfig, config: Any) -> Any:
    """Build the Hugging Face model and mark its blocks for FSDP and activation checkpointing."""
    try:
        if model.pretrained is not None:
            # Older weight files are pickles.
            made = auto_class.from_pretrained(
                model.pretrained,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        else:
            made = auto_class.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        key = "pretrained" if model.pretrained is not None else "config_overrides"
        raise ConfigError(f"model.{key}: {str(error).splitlines()[0]}") from error
    blocks = set(made._no_split_modules or ())
    for module in made.modules():
        if type(module).__name__ in blocks:
            # Without fsdp_config these marks have no effect.
            module._fsdp_wrap = True
            module._activation_checkpointing = True
    return made


def _language_model(model: ModelConfig, config: Any, tokenizer: Any) -> Any:
    from composer.metrics.nlp import LanguageCrossEntropy, LanguagePerplexity, MaskedAccuracy
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from attent_stream.launch.hf_model import wrapped

    causal = model.name == "hf_causal_lm"
    metric = LanguagePerplexity() if causal else MaskedAccuracy(ignore_index=-100)
    lora = None if model.lora is None else _lora(model.lora)
    made = _transformer(AutoModelForCausalLM if causal else AutoModelForMaskedLM, model, config)
    try:
        return wrapped(
            made,
            tokenizer=tokenizer,
            use_logits=True,
            shift_labels=causal,
            eval_metrics=[LanguageCrossEntropy(), metric],
            peft_config=lora,
        )
    except (TypeError, ValueError) as error:
        if lora is None:
            raise
        raise ConfigError(f"model.lora: {str(error).splitlines()[0]}") from error


def _lora(given: Mapping[str, Any]) -> Any:
    """Build peft's config of a ``lora`` section."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("model.lora: expected peft, run pip install peft") from error
    arguments = checked_arguments(LoraConfig, given, "model.lora")
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", **arguments})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.lora: {str(error).splitlines()[0]}") from error


def _image_classifier(model: ModelConfig, config: Any, tokenizer: Any) -> Any:
    from composer.models import ComposerClassifier
    from transformers import AutoModelForImageClassification

    # Composer's default metrics for a classifier are cross-entropy and accuracy.
    return ComposerClassifier(
        Logits(_transformer(AutoModelForImageClassification, model, config)),
        num_classes=config.num_labels,
    )


MODELS: dict[str, Callable] = {
    "hf_causal_lm": _language_model,
    "hf_masked_lm": _language_model,
    "hf_image_classifier": _image_classifier,
}


def build_model(model: ModelConfig, tokenizer: Any | None = None) -> Any:
    """Build the ``ComposerModel``, drawing weights from torch's global generator."""
    config = hf_config(model, None if tokenizer is None else len(tokenizer))
    return choose(model.name, MODELS, "model.name", "model")(model, config, tokenizer)
