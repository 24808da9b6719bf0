"""Benches of a few seconds, as YAML."""

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
