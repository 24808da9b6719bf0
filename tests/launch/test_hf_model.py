"""A wrapped model is Composer's own, and transformers imports no other model for it."""

import subprocess
import sys

import pytest
import torch
from composer.models import HuggingFaceModel, huggingface
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from attent_stream.launch.hf_model import wrapped

SIZES = {"vocab_size": 31, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}


def test_it_is_composers_own():
    asked = huggingface._is_registered_causal_lm
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SIZES)).eval()
    ours = wrapped(model, shift_labels=True, use_logits=True)
    theirs = HuggingFaceModel(model, use_logits=True)
    assert type(ours) is HuggingFaceModel and ours.shift_labels is theirs.shift_labels is True
    batch = {"input_ids": torch.arange(8)[None], "labels": torch.arange(8)[None]}
    assert torch.equal(ours.eval_forward(dict(batch)), theirs.eval_forward(dict(batch)))
    assert huggingface._is_registered_causal_lm is asked


def test_other_models_and_failures_leave_composer_as_it_was():
    asked = huggingface._is_registered_causal_lm
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
    vit = ViTForImageClassification(ViTConfig(patch_size=4, intermediate_size=8, **sizes))
    assert not wrapped(vit, shift_labels=False).shift_labels
    with pytest.raises(TypeError):
        wrapped(vit, shift_labels=False, no_such_setting=1)
    assert huggingface._is_registered_causal_lm is asked


def test_no_other_model_is_imported():
    program = f"""
import sys
from transformers import GPT2Config, GPT2LMHeadModel
from attent_stream.launch.hf_model import wrapped
wrapped(GPT2LMHeadModel(GPT2Config(**{SIZES})), shift_labels=True)
assert "transformers.models.bert.modeling_bert" not in sys.modules
assert "torch._inductor.async_compile" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
