"""Jobs of several ranks that train a model."""

import json
from pathlib import Path

from ports import free_port
from together import run_together

RECORD = {"select": "hard", "keep": 0.5, "score": "loss", "remember": "always", "interval": "1dur"}


def settings(folder: str, ranks: int) -> dict:
    common = {
        "shuffle": True,
        "shuffle_seed": 2,
        "num_canonical_nodes": 2,
        "partition_algo": "relaxed",
    }
    return {"local": folder, "batch_size": 8 // ranks, "window": 5, "gap": 1, **common}


def run_ranks(folder: Path, jobs: dict[str, dict], world: int = 2) -> list[dict]:
    """Run ``ranks_fit.py`` on several gloo ranks; what each saw of every job."""
    port = str(free_port())
    outs = [folder / f"rank{rank}.json" for rank in range(world)]
    arguments = [
        [str(rank), str(world), port, str(out), json.dumps(jobs)] for rank, out in enumerate(outs)
    ]
    run_together("ranks_fit.py", arguments, folder=folder, timeout=840)
    return [json.loads(out.read_text()) for out in outs]


def rate(parallel: str | None) -> float:
    """The learning rate that trains as one rank does: torch's FSDP2 sums gradients over gloo ranks,
    where it should average them (stock Composer trains so too).
    """
    return 0.1 / 2 if parallel == "fsdp2" else 0.1
