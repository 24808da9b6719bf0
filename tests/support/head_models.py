"""Language models of many architectures, for scores at the output head."""

import torch
import transformers
from composer.models import HuggingFaceModel
from ranks_fit import LENGTH, VOCAB

from attent_stream.launch import hf_model

T5 = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


GROUPED = SIZES | {"num_key_value_heads": 2}


GPT = {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}


T = transformers


# name -> (model class, configuration, what happens to its logits: scale and soft cap)
MODELS = {
    "llama": (T.LlamaForCausalLM, T.LlamaConfig(**GROUPED), (1.0, None)),
    "llama tied": (
        T.LlamaForCausalLM,
        T.LlamaConfig(**GROUPED, tie_word_embeddings=True),
        (1.0, None),
    ),
    "gpt2": (T.GPT2LMHeadModel, T.GPT2Config(**GPT), (1.0, None)),
    # Its configuration has a scale that the model does not use.
    "mpt": (
        T.MptForCausalLM,
        T.MptConfig(
            vocab_size=VOCAB, d_model=32, n_heads=2, n_layers=2, max_seq_len=64, logit_scale=0.2
        ),
        (1.0, None),
    ),
    "gemma2": (
        T.Gemma2ForCausalLM,
        T.Gemma2Config(**GROUPED, head_dim=16, final_logit_softcapping=1.5),
        (1.0, 1.5),
    ),
    "cohere": (T.CohereForCausalLM, T.CohereConfig(**GROUPED, logit_scale=0.0625), (0.0625, None)),
    "granite": (T.GraniteForCausalLM, T.GraniteConfig(**GROUPED, logits_scaling=4.0), (0.25, None)),
    "qwen3": (T.Qwen3ForCausalLM, T.Qwen3Config(**GROUPED, head_dim=16), (1.0, None)),
    "gpt_neox": (T.GPTNeoXForCausalLM, T.GPTNeoXConfig(**SIZES), (1.0, None)),
    "gptj with a bias": (T.GPTJForCausalLM, T.GPTJConfig(**GPT, rotary_dim=8), (1.0, None)),
    "opt projected": (
        T.OPTForCausalLM,
        T.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            word_embed_proj_dim=16,
        ),
        (1.0, None),
    ),
    "bert": (T.BertForMaskedLM, T.BertConfig(**SIZES), (1.0, None)),
    "t5": (T.T5ForConditionalGeneration, T.T5Config(**T5), (1.0, None)),
}


def build(name: str) -> HuggingFaceModel:
    model_class, config, _ = MODELS[name]
    return wrapped(model_class(config), shift=name not in ("bert", "t5"))


def wrapped(model: torch.nn.Module, shift: bool = True) -> HuggingFaceModel:
    """Wrap a model in eval mode, with weights that are large enough for scores to differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                * (0.3 if parameter.ndim > 1 else 1.0)
            )
    return hf_model.wrapped(model, tokenizer=None, use_logits=True, shift_labels=shift).eval()


def text(samples: int = 5) -> dict:
    """Right-padded; sample 3 has no label."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCAB, (samples, LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < torch.tensor([24, 7, 3, 24, 15])[:samples, None]).long()
    labels = torch.where(mask == 1, ids, -100)
    labels[3] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
