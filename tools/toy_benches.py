"""Benches of a few seconds, as YAML, for tests and dry runs."""

from pathlib import Path

TEXT = """
task: tiny
base:
  device: cpu
  model:
    name: hf_causal_lm
    architecture: llama
    config_overrides:
      {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
       num_key_value_heads: 2, max_position_embeddings: 32, tie_word_embeddings: true}
  train_loader: {name: text, dataset: {window: 2, gap: 1}, num_workers: 0}
  global_train_batch_size: 4
  device_eval_batch_size: 16
  optimizer: {name: adamw}
  scheduler: {name: cosine_with_warmup, t_warmup: 1ba, alpha_f: 0.0}
text: {streams: {stdlib: 0.05}, held_out: 0.01, vocab_size: 300, seq_len: 32}
steps: 8
seeds: [1]
evals: 2
learning_rates: [1.0e-3, 2.0e-3]
arms:
  plain: {lengths: [0.5, 1.0]}
  soft: {lengths: [1.0], algorithms: {attent: {keep: 0.5, select: soft}}}
"""

CHAT = """
task: chat
base:
  device: cpu
  model: {name: hf_causal_lm, lora: {r: 2, target_modules: [q_proj, v_proj]}}
  train_loader: {name: chat, dataset: {window: 2, gap: 1}, num_workers: 0}
  global_train_batch_size: 4
  device_eval_batch_size: 8
  optimizer: {name: adamw}
chat: {source: sums, samples: 24, held_out: 8, seq_len: 200, weights: WEIGHTS, layers: 2}
steps: 18
seeds: [1]
evals: 1
arms:
  plain: {lengths: [0.5, 1.0]}
  default: {lengths: [1.0], algorithms: {attent: {}}}
"""

PICTURES = """
task: shapes
base:
  device: cpu
  model:
    name: hf_image_classifier
    architecture: vit
    config_overrides: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                       num_attention_heads: 2, patch_size: 8}
  train_loader: {name: image, dataset: {window: 2, gap: 1}, num_workers: 0}
  global_train_batch_size: 8
  device_eval_batch_size: 20
  optimizer: {name: adamw}
images: {images: 40, held_out: 20, size: 16, wrong: 0.1}
metric: MulticlassAccuracy
higher: true
steps: 6
seeds: [1]
evals: 1
arms:
  plain: {lengths: [0.5, 1.0]}
  selective_backprop:
    lengths: [1.0]
    algorithms: {selective_backprop: {start: 0.1, end: 0.9, keep: 0.5, interrupt: 0}}
    cost: cpu
"""


def write_llama(folder: Path, *, words: int, layers: int) -> str:
    """Write a LLaMA of 16 numbers a token, as transformers reads it, and return its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=words,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
