"""Measure the processor time of ``AtteNT()`` on jobs where it falls back to plain training.

    python tools/bench_plain.py [--rounds 5] [--out FILE]

Each job trains two epochs in one process, alternately plain and with ``AtteNT()``. The ratio is
that of the median processor seconds, without the first batch, which compiles and warms up.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback
from composer.models import ComposerModel
from streaming import MDSWriter
from torch import nn
from torch.nn import functional as F

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset

SAMPLES, BATCH, SIDE, TOKENS, VOCAB = 2048, 16, 32, 64, 512


class Images(ComposerModel):
    """A small convolutional network with several heads, or with its loss fused into the forward."""

    def __init__(self, heads: int = 1, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.heads = nn.ModuleList(nn.Linear(512, 10) for _ in range(heads))
        self._fused = fused

    def forward(self, batch: Any) -> Any:
        hidden = self.body(batch["image"])
        outputs = tuple(head(hidden) for head in self.heads)
        if self._fused:  # Without torch's cross-entropy in its graph.
            own = outputs[0].gather(1, batch["label"][:, None])[:, 0]
            return {"loss": (outputs[0].exp().sum(1).log() - own).mean()}
        return outputs[0] if len(outputs) == 1 else outputs

    def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
        if self._fused:
            return outputs["loss"]
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(F.cross_entropy(part, batch["label"]) for part in parts)


class Text(ComposerModel):
    """A small causal language model with an uncommon loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.GRU(64, 128, batch_first=True)
        self.embedding, self.head = nn.Embedding(VOCAB, 64), nn.Linear(128, VOCAB)

    def forward(self, batch: Any) -> torch.Tensor:
        return self.head(self.body(self.embedding(batch["tokens"].long()))[0])

    def loss(self, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        nll = F.cross_entropy(
            outputs[:, :-1].flatten(0, 1), batch["tokens"][:, 1:].long().flatten()
        )
        return nll + 1e-3 * outputs.square().mean()


JOBS: dict[str, tuple[str, Callable[[], ComposerModel]]] = {
    "classifier": ("images", Images),
    "two heads": ("images", lambda: Images(heads=2)),
    "loss without outputs": ("images", lambda: Images(fused=True)),
    "language model, loss not readable": ("text", Text),
}


class Processor(Callback):
    """Measure the processor seconds of training after its first batch."""

    def __init__(self) -> None:
        self.seconds = self._begin = 0.0
        self._batches = 0

    def batch_end(self, state: Any, logger: Any) -> None:
        self._batches += 1
        if self._batches == 1:
            self._begin = time.process_time()

    def fit_end(self, state: Any, logger: Any) -> None:
        self.seconds = time.process_time() - self._begin


def write(folder: Path, kind: str) -> str:
    rng = np.random.default_rng(0)
    columns = {"image": f"ndarray:float32:3,{SIDE},{SIDE}", "label": "int"}
    columns = columns if kind == "images" else {"tokens": f"ndarray:int32:{TOKENS}"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for _ in range(SAMPLES):
            image = {
                "image": rng.normal(size=(3, SIDE, SIDE)).astype(np.float32),
                "label": int(rng.integers(10)),
            }
            text = {"tokens": rng.integers(VOCAB, size=TOKENS).astype(np.int32)}
            writer.write(image if kind == "images" else text)
    return str(folder)


def seconds(folder: str, make: Callable[[], ComposerModel], algorithms: list[Any]) -> float:
    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=8, shuffle=True)
    loader, model, watch = TeachingDataLoader(dataset, batch_size=BATCH), make(), Processor()
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-4),
        max_duration="2ep",
        algorithms=algorithms,
        callbacks=[watch],
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "date": str(date.today()),
        "torch": torch.__version__,
        "machine": platform.processor(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name, (kind, make) in JOBS.items():
            folder = Path(scratch) / kind
            if not folder.exists():
                write(folder, kind)
            times = [
                (seconds(str(folder), make, []), seconds(str(folder), make, [AtteNT()]))
                for _ in range(given.rounds)
            ]
            plain, taught = (statistics.median(column) for column in zip(*times, strict=True))
            ratios = sorted(b / a for a, b in times)
            result[name] = {
                "plain_s": round(plain, 3),
                "ratio": round(taught / plain, 4),
                "ratios": [round(one, 4) for one in ratios],
            }
            print(
                f"{name:35} plain {plain:7.3f} s, with AtteNT() {taught / plain:.4f} of it",
                flush=True,
            )
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
