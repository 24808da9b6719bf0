"""Several ranks of a taught run without a model."""

import json
from pathlib import Path

from ports import free_port
from together import run_together


def run_ranks(tmp_path: Path, world: int, spec: dict) -> list[dict]:
    """Run ``taught.py`` on several gloo ranks of one node."""
    port = str(free_port())
    outs = [tmp_path / f"rank{world}_{rank}.json" for rank in range(world)]
    arguments = [
        [str(rank), str(world), port, str(out), json.dumps(spec)] for rank, out in enumerate(outs)
    ]
    run_together("taught.py", arguments, folder=tmp_path, timeout=240)
    return [json.loads(out.read_text()) for out in outs]
