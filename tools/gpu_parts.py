"""Parts of ``gpu.py`` that are no command of their own.

    python tools/gpu_parts.py head|step [--toy]
    python tools/gpu_parts.py lora|lm|vit --toy

With ``--toy`` on a CPU, in seconds. The last line is a JSON object.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

FEW = [
    (classes, width, 16384)
    for classes, width in ((50257, 768), (32000, 2048), (128256, 4096), (50257, 2048))
]
TOY = [(512, 64, 256)]
_MODEL = """
  model:
    name: hf_causal_lm
    architecture: llama
    config_overrides:
      {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
       num_key_value_heads: 2, max_position_embeddings: 32, tie_word_embeddings: true}
"""
_REST = """
steps: 8
seeds: [1]
evals: 1
arms:
  plain: {lengths: [0.5, 1.0]}
  default: {lengths: [1.0], algorithms: {attent: {}}}
"""
_TRAINED = """
  device: cpu
  global_train_batch_size: 4
  device_eval_batch_size: 16
  optimizer: {name: adamw, lr: 1.0e-3}
"""
TASKS = {
    "lm": f"""
task: lm
base:{_TRAINED}  train_loader: {{name: text, dataset: {{window: 2, gap: 1}}, num_workers: 0}}
{_MODEL.strip(chr(10))}
text: {{streams: {{stdlib: 0.05}}, held_out: 0.01, vocab_size: 300, seq_len: 32}}{_REST}""",
    "lora": f"""
task: lora
base:{_TRAINED}  train_loader: {{name: chat, dataset: {{window: 2, gap: 1}}, num_workers: 0}}
  model: {{name: hf_causal_lm, lora: {{r: 2, target_modules: [q_proj, v_proj]}}}}
chat: {{source: sums, samples: 16, held_out: 8, seq_len: 128, weights: WEIGHTS}}{_REST}""",
    "vit": f"""
task: vit
metric: MulticlassAccuracy
higher: true
base:{_TRAINED}  train_loader: {{name: image, dataset: {{window: 2, gap: 1}}, num_workers: 0}}
  model:
    name: hf_image_classifier
    architecture: vit
    config_overrides:
      {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
       patch_size: 4}}
images: {{images: 32, held_out: 8, size: 16}}{_REST}""",
}


def tiny_weights(folder: Path) -> str:
    """A LLaMA of one layer with a tokenizer, as transformers reads them."""
    import numpy as np
    from transformers import LlamaConfig, LlamaForCausalLM

    from attent_stream.bench.chats import sums
    from attent_stream.corpus.tokenizer import train_tokenizer

    texts = [f"{one['prompt']}\n{one['answer']}" for one in sums(50, np.random.default_rng(1))]
    train_tokenizer(texts, 300).save(folder)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def toy_bench(name: str) -> dict:
    """Run a task of seconds, and return its rows."""
    from attent_stream.bench.command import main as bench

    with tempfile.TemporaryDirectory() as folder:
        path, results = Path(folder) / f"{name}.yaml", Path(folder) / "quality.json"
        weights = tiny_weights(Path(folder) / "weights") if name == "lora" else ""
        path.write_text(TASKS[name].replace("WEIGHTS", weights))
        code = bench([str(path), "--out", str(Path(folder) / "out"), "--results", str(results)])
        if code:
            raise SystemExit(code)
        return {"rows": json.loads(results.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("head", "step", *TASKS))
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    device = "cpu" if given.toy else "cuda"
    found: dict = {"torch": torch.__version__}
    if given.part == "head":
        from bench_scoring_head import gpu_head

        found |= gpu_head(TOY if given.toy else FEW, device)
    elif given.part == "step":
        from bench_scoring_step import GPU, measured_step
        from bench_scoring_step import TOY as SMALL

        found |= measured_step(SMALL if given.toy else GPU, rounds=3, device=device)
    elif given.toy:
        found |= toy_bench(given.part)
    else:
        parser.error(f"{given.part} without --toy is a task of yamls/bench/h200, see gpu.py")
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
