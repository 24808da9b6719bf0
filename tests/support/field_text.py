"""Jobs of text whose models are Hugging Face's, in Composer's wrapper for them."""

from collections.abc import Callable

import numpy as np
import torch
from composer.models import HuggingFaceModel
from field_jobs import (
    COUNT,
    IGNORED,
    LENGTH,
    SCORED,
    VOCAB,
    Job,
    class_scores,
    number_scores,
    walk,
    written,
    yes_no_scores,
)
from torch.nn import Module
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

_SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": LENGTH,
}


def gpt2(**options) -> GPT2LMHeadModel:
    """A GPT-2 without dropout."""
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **options,
    )
    return GPT2LMHeadModel(config)


def llama(**options) -> LlamaForCausalLM:
    """A LLaMA."""
    return LlamaForCausalLM(LlamaConfig(**_SMALL, **options))


def _gemma2() -> Gemma2ForCausalLM:
    config = Gemma2Config(
        **_SMALL,
        head_dim=8,
        final_logit_softcapping=0.5,
        attn_logit_softcapping=5.0,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def _mpt(**options) -> MptForCausalLM:
    small = {"vocab_size": VOCAB, "d_model": 16, "n_heads": 2, "n_layers": 1}
    return MptForCausalLM(MptConfig(**small, max_seq_len=LENGTH, **options))


def _opt() -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        dropout=0.0,
        max_position_embeddings=LENGTH,
        word_embed_proj_dim=16,
    )
    return OPTForCausalLM(config)


def _mamba() -> MambaForCausalLM:
    return MambaForCausalLM(
        MambaConfig(vocab_size=VOCAB, hidden_size=16, state_size=4, num_hidden_layers=1)
    )


def _experts() -> MixtralForCausalLM:
    config = MixtralConfig(
        **_SMALL,
        num_local_experts=2,
        num_experts_per_tok=1,
        output_router_logits=True,
        router_aux_loss_coef=0.1,
        experts_implementation="eager",  # newer transformers' own takes no float64
    )
    return MixtralForCausalLM(config)


def _bert(cls: type = BertForMaskedLM, **options) -> Module:
    small = {key: value for key, value in _SMALL.items() if key != "num_key_value_heads"} | options
    return cls(BertConfig(**small, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def _t5() -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=VOCAB,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def _zero(model: Module) -> Module:
    """With an output head that knows nothing yet: all logits are 0."""
    model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(VOCAB, 16))
    return model


def hugging(build: Callable[[], Module], **options) -> Callable[[], HuggingFaceModel]:
    """Builds it within Composer's wrapper, the same each time."""

    def made() -> HuggingFaceModel:
        torch.manual_seed(0)
        return HuggingFaceModel(build(), tokenizer=None, **options)

    return made


def next_tokens(logits: Callable) -> Callable:
    """The reading of a causal language model: a position's output is for the next one's label."""

    def reading(model, batch):
        labels = batch.get("labels", batch["input_ids"])
        return logits(model, batch)[:, :-1], labels[:, 1:]

    return reading


def hugging_logits(model, batch):
    """Of Composer's wrapper, asked as Hugging Face's own."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask") if key in batch}
    outputs = model.model(**inputs)
    return outputs[0] if isinstance(outputs, tuple) else outputs.logits


TEXT = {"input_ids": "ndarray:int64", "attention_mask": "ndarray:int64", "labels": "ndarray:int64"}


def padded(rng: np.random.Generator, unlabelled: float = 0.0) -> dict:
    """A text of any length, padded; some have no label at all."""
    tokens, length = walk(rng), int(rng.integers(LENGTH // 2, LENGTH + 1))
    mask = (np.arange(LENGTH) < length).astype(np.int64)
    bare = rng.random() < unlabelled
    return {
        "input_ids": tokens * mask,
        "attention_mask": mask,
        "labels": np.where((mask == 1) & (not bare), tokens, IGNORED),
    }


def _masked(rng: np.random.Generator) -> dict:
    tokens = walk(rng)
    hidden = rng.random(LENGTH) < 0.2
    hidden[rng.integers(LENGTH)] = True
    return {
        "input_ids": np.where(hidden, 1, tokens),
        "attention_mask": np.ones(LENGTH, np.int64),
        "labels": np.where(hidden, tokens, IGNORED),
    }


def _rated(rng: np.random.Generator) -> dict:
    text = padded(rng)
    return text | {"labels": np.float32(text["input_ids"][:4].mean() / VOCAB)}


def _sorted(rng: np.random.Generator) -> dict:
    text = padded(rng)
    return text | {"labels": int(text["input_ids"][0] % 3)}


def _ticked(rng: np.random.Generator) -> dict:
    text = padded(rng)
    return text | {"labels": (rng.random(3) < 0.4).astype(np.float32)}


def _tagged(rng: np.random.Generator) -> dict:
    text = padded(rng)
    return text | {"labels": np.where(text["labels"] == IGNORED, IGNORED, text["input_ids"] % 3)}


def _noted(rng: np.random.Generator) -> dict:
    return padded(rng) | {
        "url": f"page {rng.integers(COUNT)}",
        "words": ["a"] * int(rng.integers(1, 4)),
    }


def _noting(samples: list) -> dict:
    tensors = {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in TEXT
    }
    return {
        "url": [sample["url"] for sample in samples],
        "words": [sample["words"] for sample in samples],
    } | tensors


def _denoised(model, batch):
    return model.model(**batch).logits, batch["labels"]


def _rating(model, batch):
    outputs, labels = _denoised(model, batch)
    return outputs, labels[:, None]


def _encoder(name: str, cls: type, sample: Callable, kind: str, brute: dict, **options) -> Job:
    columns = TEXT | {"labels": kind}
    build = hugging(lambda: _bert(cls, **options))
    return Job(name=name, model=build, write=written(columns, sample), expected=SCORED, **brute)


def _language(name: str, build: Callable[[], Module], **options) -> Job:
    settings = {
        "model": hugging(build),
        "write": written(TEXT, padded),
        "expected": SCORED,
    } | options
    return Job(name=name, **settings, **class_scores(next_tokens(hugging_logits)))


_TICKS = {"num_labels": 3, "problem_type": "multi_label_classification"}

JOBS = [
    _language("GPT-2", gpt2),
    _language("LLaMA", llama),
    _language("Qwen2", lambda: Qwen2ForCausalLM(Qwen2Config(**_SMALL))),
    _language("Gemma 2 (soft cap)", _gemma2),
    _language("MPT", _mpt),
    _language("OPT", _opt),
    _language("Mamba", _mamba),
    _language("GPT-2, microbatches of 1", gpt2, trainer={"device_train_microbatch_size": 1}),
    _language("OPT, weights in bfloat16", lambda: _opt().bfloat16(), close=5e-3),
    _language("MPT, outputs as a tuple", _mpt, model=hugging(lambda: _mpt(return_dict=False))),
    _language("GPT-2, head all zeros", lambda: _zero(gpt2(tie_word_embeddings=False))),
    _language(
        "GPT-2, 5% of samples without a label",
        gpt2,
        write=written(TEXT, lambda rng: padded(rng, 0.05)),
    ),
    _language(
        "GPT-2, batches with strings and lists",
        gpt2,
        write=written(TEXT | {"url": "str", "words": "json"}, _noted),
        collate=_noting,
    ),
    _language("Mixtral (router's loss added)", _experts, expected="plain"),
    Job(
        name="T5",
        model=hugging(_t5),
        write=written(TEXT, padded),
        expected=SCORED,
        **class_scores(_denoised),
    ),
    Job(
        name="BERT (masked tokens)",
        model=hugging(_bert),
        write=written(TEXT, _masked),
        expected=SCORED,
        **class_scores(_denoised),
    ),
    _encoder(
        "BERT, a class of each text",
        BertForSequenceClassification,
        _sorted,
        "int",
        class_scores(_denoised),
        num_labels=3,
    ),
    _encoder(
        "BERT, several classes of each text",
        BertForSequenceClassification,
        _ticked,
        "ndarray:float32",
        yes_no_scores(_denoised),
        **_TICKS,
    ),
    _encoder(
        "BERT, a number of each text",
        BertForSequenceClassification,
        _rated,
        "float32",
        number_scores(_rating),
        num_labels=1,
    ),
    _encoder(
        "BERT, a class of each token",
        BertForTokenClassification,
        _tagged,
        "ndarray:int64",
        class_scores(_denoised),
        num_labels=3,
    ),
]
