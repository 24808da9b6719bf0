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
import yaml
from toy_benches import CHAT, PICTURES, TEXT, write_llama

FEW = [
    (classes, width, 16384)
    for classes, width in ((50257, 768), (32000, 2048), (128256, 4096), (50257, 2048))
]
TOY = [(512, 64, 256)]
TASKS = {"lm": TEXT, "lora": CHAT, "vit": PICTURES}
ARMS = {
    "plain": {"lengths": [0.5, 1.0]},
    "default": {"lengths": [1.0], "algorithms": {"attent": {}}},
}


def tiny_weights(folder: Path) -> str:
    """A LLaMA and its tokenizer, as transformers reads them."""
    import numpy as np

    from attent_stream.bench.chats import sums
    from attent_stream.corpus.tokenizer import train_tokenizer

    texts = [f"{one['prompt']}\n{one['answer']}" for one in sums(50, np.random.default_rng(1))]
    train_tokenizer(texts, 300).save(folder)
    return write_llama(folder, words=300, layers=2)


def toy_bench(name: str) -> dict:
    """Run a task of seconds, and return its rows."""
    from attent_stream.bench.command import main as bench

    with tempfile.TemporaryDirectory() as folder:
        path, results = Path(folder) / f"{name}.yaml", Path(folder) / "quality.json"
        weights = tiny_weights(Path(folder) / "weights") if name == "lora" else ""
        task = yaml.safe_load(TASKS[name].replace("WEIGHTS", weights)) | {"arms": ARMS}
        path.write_text(yaml.safe_dump(task))
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
