"""Run a rank of a taught run that is killed: a small language model with checkpoints and a log.

Start it as ``composer -n 2 tools/soak_rank.py SPEC.json``, or fork it with ``zygote.py``. The score
is a column of the corpus, because a model's scores differ in their last bits between world sizes.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from composer import Callback, Trainer
from composer.models import ComposerModel
from composer.utils import dist
from streaming import MDSWriter

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.arrange import balance
from attent_stream.base.watch import collective
from attent_stream.teach import chooser

VOCAB, LENGTH = 64, 32


def write_corpus(folder: str, samples: int, seed: int, like: float = 0.0) -> None:
    """Write samples ``{id, difficulty, tokens}``, 16 in a shard.

    Args:
        folder: Where to.
        samples: How many.
        seed: Seed of all draws.
        like: Share of samples that are like a target: their tokens rise in larger steps.
    """
    rng = np.random.default_rng([seed])
    columns = {"id": "int", "difficulty": "float32", "tokens": "ndarray:uint16"}
    with MDSWriter(
        out=folder, columns=columns, size_limit=16 * (LENGTH * 2 + 60), hashes=["xxh64"]
    ) as writer:
        for sample_id in range(samples):
            least = 5 if rng.random() < like else 1
            tokens = np.cumsum(rng.integers(least, least + 3, LENGTH)) % VOCAB
            tokens = tokens.astype(np.uint16)
            writer.write(
                {"id": sample_id, "difficulty": np.float32(rng.random()), "tokens": tokens}
            )


class SmallLM(ComposerModel):
    """Two causal layers of width 32, without Composer's wrapper, which takes 20 s to import."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, 32)
        layer = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2)
        self.head = torch.nn.Linear(32, VOCAB)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return logits, float of shape (B, LENGTH, VOCAB)."""
        mask = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH)
        return self.head(self.layers(self.embed(batch["input_ids"]), mask=mask, is_causal=True))

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean cross-entropy of the next token in nats."""
        return torch.nn.functional.cross_entropy(
            outputs[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        )


class Collate:
    """Collate samples for a causal language model.

    Args:
        pause: Seconds that each batch takes, to imitate a slow node.
    """

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def __call__(self, samples: list) -> dict[str, torch.Tensor]:
        time.sleep(self.pause)
        tokens = torch.from_numpy(
            np.stack([sample["tokens"] for sample in samples]).astype(np.int64)
        )
        difficulty = torch.tensor([sample["difficulty"] for sample in samples])
        # A value for each token, as short pieces cut all that is in a batch
        columns = {"labels": tokens, "difficulty": difficulty[:, None].expand_as(tokens)}
        return {"input_ids": tokens, **columns}


class LessonLog(Callback):
    """Log the number, ids (of pieces, where samples are cut), weights, scoring passes and memory
    (bytes) of each batch as JSON.
    """

    def __init__(self, loader: TeachingDataLoader, path: Path) -> None:
        self._loader, self._file = loader, open(path, "w")  # noqa: SIM115  as long as the process
        self.passes = 0

    def score(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the samples' difficulty."""
        self.passes += 1
        return batch["difficulty"][:, 0]

    def batch_end(self, state, logger) -> None:
        """Log the batch after training on it."""
        epoch = self._loader.epoch
        ids, weights = epoch.lesson
        pieces = epoch.segment.pieces[epoch.position.lesson - 1][: len(ids)]
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        line = {
            "batch": int(state.timestamp.batch),
            "ids": (ids * epoch.units + pieces).tolist(),
            "weights": weights.tolist(),
            "passes": self.passes,
        }
        print(
            json.dumps(line | {"rss": pages * os.sysconf("SC_PAGE_SIZE")}),
            file=self._file,
            flush=True,
        )


def run(spec: dict) -> None:
    """Train, from the newest checkpoint if there is one.

    Args:
        spec: ``folder`` of checkpoints and logs, ``start`` (name of the log), ``batch`` (global
            size), ``duration``, ``data`` (arguments of ``TeachingDataset``), ``attent`` (arguments
            of ``AtteNT``; those without a target score by the column), ``workers``, ``save``
            (interval), ``slow`` (seconds that a batch takes on all nodes but the first), ``panel``
            (units of a panel), ``large`` (units of a window that is chosen in a thread).
    """
    balance.PANEL = spec.get("panel", balance.PANEL)
    chooser.LARGE = spec.get("large", chooser.LARGE)
    chooser.COMPARED = spec.get("large", chooser.COMPARED)
    torch.set_num_threads(1)
    folder, rank = Path(spec["folder"]), int(os.environ.get("RANK", "0"))
    node = os.environ.get("NODE_RANK", "0")
    batch_size = spec["batch"] // int(os.environ.get("WORLD_SIZE", "1"))
    dist.initialize_dist("cpu", timeout=60)
    data = spec["data"] | {"local": spec["data"]["local"] + node}
    dataset = TeachingDataset(batch_size=batch_size, **data)
    collate = Collate(spec.get("slow", 0.0) if node != "0" else 0.0)
    loader = TeachingDataLoader(
        dataset, batch_size=batch_size, num_workers=spec["workers"], collate_fn=collate, timeout=120
    )
    log = LessonLog(loader, folder / f"{spec['start']}.rank{rank}.jsonl")
    torch.manual_seed(0)
    model = SmallLM()
    # Composer 0.32's autoresume fails on nodes that share a save folder, as all delete one file.
    several_nodes = os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1")
    toward = "target" in spec["attent"]  # then the target says what is scored
    newest = folder / "checkpoints" / "latest-rank0.pt"
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.05),
        max_duration=spec["duration"],
        algorithms=[AtteNT(**({} if toward else {"score": log.score}), **spec["attent"])],
        callbacks=[log],
        progress_bar=False,
        device="cpu",
        seed=7,
        dist_timeout=60,
        run_name="soak",
        save_folder=str(folder / "checkpoints"),
        save_interval=spec["save"],
        save_num_checkpoints_to_keep=2,
        save_overwrite=True,
        autoresume=not several_nodes,
        load_path=str(newest) if several_nodes and newest.exists() else None,
    )
    if trainer.state.get_elapsed_duration() < 1.0:
        with collective("training"):
            trainer.fit()
    trainer.close()


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
