"""Small MDS corpora for tests."""

from pathlib import Path

import numpy as np
from streaming import MDSWriter


def write_ids(folder: Path, count: int, *, first: int = 0, per_shard: int = 16) -> str:
    """Samples ``{id, difficulty}`` with ids ``first .. first + count``; difficulty is a fixed
    scramble of the id.
    """
    size = per_shard * 24 + 512
    with MDSWriter(
        out=str(folder), columns={"id": "int", "difficulty": "float32"}, size_limit=size
    ) as writer:
        for sample_id in range(first, first + count):
            writer.write({"id": sample_id, "difficulty": np.float32(difficulty(sample_id))})
    return str(folder)


def difficulty(sample_id: int) -> float:
    """A number in [0, 1) that no shuffle of the stream resembles."""
    return (sample_id * 2654435761 % 2**32) / 2**32


def write_tokens(folder: Path, count: int, *, length: int, vocab: int, seed: int = 0) -> str:
    """Samples ``{tokens}``: random walks over a vocabulary, so that a model can learn something."""
    rng = np.random.default_rng(seed)
    with MDSWriter(
        out=str(folder), columns={"tokens": "ndarray:uint16"}, size_limit=1 << 16
    ) as writer:
        for _ in range(count):
            steps = rng.integers(1, 4, length)
            writer.write({"tokens": (np.cumsum(steps) % vocab).astype(np.uint16)})
    return str(folder)
