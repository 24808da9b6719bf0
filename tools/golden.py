"""Train small taught runs and print a hash of each: what a change of structure must leave as it
was.

    python tools/golden.py > before.txt     # on the old commit
    python tools/golden.py > after.txt      # on the new one, on the same machine
    diff before.txt after.txt

A line has a run's name, its number of batches, a hash of what was trained on (the batches' tensors
in order) and a hash of the losses. Losses, and so what is chosen by scores, depend on the CPU and
on torch.
"""

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer import Callback, Trainer
from composer.models import ComposerClassifier, HuggingFaceModel
from composer.utils import dist
from streaming import MDSWriter, Stream
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator

VOCAB, LENGTH, BATCH, SIDE = 61, 32, 4, 16
PIECES = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}

# name -> (AtteNT's arguments, max_duration, what differs from the plain setting)
RUNS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "default, text seen once": ({}, "1ep", {}),
    "default, text seen again": ({}, "3ep", {}),
    "default, text seen again, short windows": ({}, "3ep", {"window": 4}),
    "default, padded text": ({}, "1ep", {"padded": True}),
    "default, padded text again": ({}, "2ep", {"padded": True}),
    "default, samples": ({}, "150sp", {}),
    "hard": ({"select": "hard", "keep": 0.5}, "2ep", {}),
    "soft": ({"select": "soft", "keep": 0.5, "score": "loss"}, "2ep", {}),
    "random": ({"select": "random", "keep": 0.5}, "2ep", {}),
    "prune": (
        {"select": "prune", "keep": 0.6, "score": "loss", "record": "always", "interval": "1dur"},
        "3ep",
        {},
    ),
    "unbiased": ({"select": "unbiased", "keep": 0.6}, "2ep", {}),
    "remembered": ({"score": "remembered", "select": "soft", "keep": 0.5}, "3ep", {}),
    "progress": ({"score": "progress", "keep": 0.6}, "3ep", {"streams": 2}),
    "per stream": (
        {"score": "remembered", "select": "soft", "ledger": "stream"},
        "3ep",
        {"streams": 2},
    ),
    "per shard": (
        {"score": "remembered", "select": "hard", "ledger": "shard"},
        "3ep",
        {"streams": 2},
    ),
    "no trend": ({"ledger": {"detrend": False}}, "3ep", {}),
    "attent_simple": (
        {
            "score": "loss",
            "select": "hard",
            "keep": 0.7,
            "interval": "1dur",
            "warmup": "1ep",
            "record": "warmup",
        },
        "3ep",
        {},
    ),
    "attent_complex": (
        {
            "score": "residual",
            "select": "soft",
            "temperature": 1.0,
            "warmup": "1ep",
            "record": "never",
            "keep": {"schedule": "cosine", "from": 0.2, "to": 0.8, "over": "1dur"},
            "interval": {"schedule": "linear", "from": "1ep", "to": "2ep", "over": "1dur"},
        },
        "3ep",
        {},
    ),
    "pieces": ({"seq_len": PIECES, "balance": "none", "select": "random", "keep": 1.0}, "1ep", {}),
    "pieces, half kept": (
        {"seq_len": 0.5, "balance": "none", "select": "random", "keep": 0.5},
        "2ep",
        {},
    ),
    "pieces, balanced, hard": (
        {"seq_len": PIECES, "balance": "tokens", "select": "hard", "keep": 0.6},
        "2ep",
        {},
    ),
    "balance": ({"balance": "tokens", "select": "random", "keep": 0.7}, "2ep", {}),
    "balance, remembered": ({"balance": "tokens"}, "3ep", {}),
    "lazy order": ({"select": "soft", "keep": 0.5, "score": "loss"}, "2ep", {"order": "lazy"}),
    "lazy order, pieces": ({}, "1ep", {"order": "lazy"}),
    "two streams, stratified": (
        {"select": "hard", "keep": 0.5},
        "2ep",
        {"streams": 2, "batching_method": "stratified"},
    ),
    "two streams, per stream": (
        {"select": "soft", "keep": 0.5},
        "2ep",
        {"streams": 2, "batching_method": "per_stream"},
    ),
    "warmup and anneal": (
        {"select": "hard", "keep": 0.5, "warmup": "0.2dur", "anneal": "0.2dur"},
        "2ep",
        {},
    ),
    "ceiling": ({"ceiling": 0.1, "select": "hard", "keep": 0.5}, "2ep", {}),
    "grad_norm": ({"keep": 0.7, "select": "hard", "score": "grad_norm"}, "1ep", {}),
    "entropy": ({"score": "entropy", "select": "soft", "keep": 0.5}, "1ep", {}),
    "margin": ({"score": "margin", "select": "soft", "keep": 0.5}, "1ep", {}),
    "learnability": (
        {"score": "learnability", "reference": {"snapshot": "4ba"}, "select": "hard", "keep": 0.5},
        "2ep",
        {},
    ),
    "early exit": (
        {"fidelity": {"layers": 1, "tokens": {"share": 0.5}}, "select": "hard", "keep": 0.5},
        "2ep",
        {},
    ),
    "auto fidelity": ({"fidelity": "auto", "select": "hard", "keep": 0.5}, "2ep", {}),
    "reweight": ({"reweight": "linupper"}, "2ep", {}),
    "positions": ({"positions": 0.5}, "2ep", {}),
    "microbatches": ({"select": "hard", "keep": 0.5}, "1ep", {"microbatch": 2}),
    "pieces, microbatches": ({}, "1ep", {"microbatch": 2}),
    "images": ({}, "2ep", {"images": True}),
    "images, hard": ({"select": "hard", "keep": 0.5}, "2ep", {"images": True}),
    "images, resolution": (
        {"resolution": {"schedule": "step", "from": 0.5, "to": 1, "over": "0.8dur", "stages": 2}},
        "2ep",
        {"images": True},
    ),
}
ON_FOUR = (
    "default, text seen once",
    "default, text seen again",
    "hard",
    "soft",
    "balance",
    "pieces, balanced, hard",
    "lazy order",
)


def write_text(folder: Path, count: int, seed: int) -> str:
    """Samples ``{tokens}``: random walks over a vocabulary."""
    rng = np.random.default_rng(seed)
    with MDSWriter(
        out=str(folder), columns={"tokens": "ndarray:uint16"}, size_limit=1 << 12
    ) as writer:
        for _ in range(count):
            writer.write(
                {"tokens": (np.cumsum(rng.integers(1, 4, LENGTH)) % VOCAB).astype(np.uint16)}
            )
    return str(folder)


def write_images(folder: Path, count: int) -> str:
    """Samples ``{image, label}``: noise around one of four means."""
    rng = np.random.default_rng(5)
    with MDSWriter(
        out=str(folder), columns={"image": "ndarray:float32", "label": "int"}, size_limit=1 << 16
    ) as writer:
        for index in range(count):
            image = rng.normal(index % 4, 1.0, (3, SIDE, SIDE)).astype(np.float32)
            writer.write({"image": image, "label": index % 4})
    return str(folder)


def images(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Batches of ``write_images``."""
    return torch.from_numpy(np.stack([s["image"] for s in samples])), torch.tensor(
        [s["label"] for s in samples]
    )


class ViT(torch.nn.Module):
    """A Hugging Face ViT that returns its logits."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(
            image_size=SIDE,
            patch_size=4,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=4,
        )
        self.vit = ViTForImageClassification(config)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vit(pixels).logits


def model_of(kind: dict[str, Any]) -> Any:
    """A model with the same weights each time."""
    torch.manual_seed(0)
    if kind.get("images"):
        return ComposerClassifier(ViT(), num_classes=4)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    return HuggingFaceModel(
        GPT2LMHeadModel(config), tokenizer=None, use_logits=True, shift_labels=True
    )


class Hashes(Callback):
    """Hashes of what is trained on, and of the losses."""

    def __init__(self) -> None:
        self.seen, self.losses, self.batches = hashlib.md5(), hashlib.md5(), 0

    def before_train_batch(self, state: Any, logger: Any) -> None:
        """Take in the batch."""
        values = state.batch.values() if isinstance(state.batch, dict) else state.batch
        for value in values:
            self.seen.update(value.numpy().tobytes())

    def batch_end(self, state: Any, logger: Any) -> None:
        """Take in its loss."""
        self.losses.update(np.float64(state.loss.item()).tobytes())
        self.batches += 1


def train(name: str, folder: Path) -> str:
    """One run's line."""
    arguments, duration, kind = RUNS[name]
    if kind.get("images"):
        place = {"local": str(folder / "images")}
    elif kind.get("streams"):
        place = {"streams": [Stream(local=str(folder / f"text{k}")) for k in range(2)]}
    else:
        place = {"local": str(folder / "text0")}
    dataset = TeachingDataset(
        **place,
        batch_size=BATCH,
        window=kind.get("window", 6),
        gap=1,
        shuffle=True,
        num_canonical_nodes=4,
        **{key: kind[key] for key in ("order", "batching_method") if key in kind},
    )
    collate = (
        images if kind.get("images") else TokenCollator(pad_id=0 if kind.get("padded") else None)
    )
    model, hashes = model_of(kind), Hashes()
    trainer = Trainer(
        model=model,
        train_dataloader=TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=collate),
        optimizers=torch.optim.AdamW(model.parameters(), lr=0.01),
        max_duration=duration,
        algorithms=[AtteNT(**arguments)],
        callbacks=[hashes],
        progress_bar=False,
        seed=3,
        device_train_microbatch_size=kind.get("microbatch"),
        dist_timeout=60.0,
    )
    trainer.fit()
    trainer.close()
    hashed = [hashes.seen.hexdigest(), hashes.losses.hexdigest()]
    told = [one for rank in dist.all_gather_object(hashed) for one in rank]
    total = [hashlib.md5("".join(told[k::2]).encode()).hexdigest()[:12] for k in range(2)]
    return f"{name}: {hashes.batches} batches, seen {total[0]}, losses {total[1]}"


def write_corpora(folder: Path) -> None:
    """All that the runs read."""
    for index in range(2):
        write_text(folder / f"text{index}", 192 - 64 * index, seed=index)
    write_images(folder / "images", 96)


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", help="names of runs")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="print the runs' settings as JSON")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if given.list:
        print(json.dumps(RUNS, indent=1))
        return
    if given.folder:
        torch.set_num_threads(1)
        for name in given.only:
            try:
                line = train(name, Path(given.folder))
            except Exception as error:  # the other runs are of use without it
                line = f"{name}: failed: {type(error).__name__}: {error}"
            if dist.get_global_rank() == 0:
                print(line, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_corpora(Path(folder))
        _run([sys.executable, __file__], given.only or list(RUNS), folder)
        print("four ranks:", flush=True)
        _run(["composer", "-n", "4", __file__], given.only or list(ON_FOUR), folder)


def _run(command: list[str], names: list[str], folder: str) -> None:
    path = os.pathsep.join(
        [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [*command, "--folder", folder, "--only", *names],
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )
    print(
        "\n".join(
            line
            for line in made.stdout.splitlines()
            if ": failed: " in line or " batches, seen " in line
        ),
        flush=True,
    )
    if made.returncode:
        sys.exit(f"failed: {made.stderr[-3000:]}")


if __name__ == "__main__":
    main()
