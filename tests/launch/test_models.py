"""Models and tokenizers from their sections."""

import pytest
import torch
from tiny_runs import write_model

from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.config_sections import ModelConfig, TokenizerConfig
from attent_stream.launch.models import build_model, build_tokenizer, hf_config

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def llama(**overrides) -> ModelConfig:
    return ModelConfig(name="hf_causal_lm", architecture="llama", config_overrides=overrides)


def test_the_vocabulary_is_the_tokenizers_unless_given():
    assert hf_config(llama(), 300).vocab_size == 300
    assert hf_config(llama(vocab_size=512), 300).vocab_size == 512
    assert not hf_config(llama()).use_cache and hf_config(llama(use_cache=True)).use_cache
    with pytest.raises(ConfigError, match=r"vocab_size: expected at least the tokenizer's 300"):
        hf_config(llama(vocab_size=256), 300)


def test_pretrained_weights_are_read_and_kept(tmp_path):
    folder = write_model(tmp_path)
    tokenizer = build_tokenizer(TokenizerConfig(path=folder))
    assert len(tokenizer) == 256 and build_tokenizer(None) is None
    section = ModelConfig(name="hf_causal_lm", pretrained=folder)
    torch.manual_seed(1)
    first = build_model(section, tokenizer).model.state_dict()
    torch.manual_seed(2)
    again = build_model(section, tokenizer).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_image_classifier_maps_pixels_to_logits():
    fields = {**SMALL, "image_size": 16, "patch_size": 8, "num_labels": 5}
    model = build_model(
        ModelConfig(name="hf_image_classifier", architecture="vit", config_overrides=fields)
    )
    assert model.module.num_classes == 5
    assert model.module(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_lora_trains_adapters_only(tmp_path):
    folder = write_model(tmp_path)
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    section = ModelConfig(name="hf_causal_lm", pretrained=folder, lora=lora)
    model = build_model(section, build_tokenizer(TokenizerConfig(path=folder)))
    trained = [name for name, param in model.named_parameters() if param.requires_grad]
    assert len(trained) == 2 * 2 * 2 and all("lora_" in name for name in trained)


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"rank": 2}, "model.lora.rank: unknown key"),
        ({"r": "two"}, "model.lora: .*'str' and 'int'"),
        ({"r": 2, "target_modules": ["nowhere"]}, "model.lora: Target modules .* not found"),
    ],
)
def test_mistakes_of_lora_are_one_sentence(tmp_path, lora, reason):
    section = ModelConfig(name="hf_causal_lm", pretrained=write_model(tmp_path), lora=lora)
    with pytest.raises(ConfigError, match=reason):
        build_model(section)


def test_lora_is_for_causal_models():
    with pytest.raises(ValueError, match="expected lora with hf_causal_lm only, got hf_masked_lm"):
        ModelConfig(name="hf_masked_lm", architecture="bert", lora={})
