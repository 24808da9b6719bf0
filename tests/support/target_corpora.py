"""A stream of two kinds of text, and a target of one of them."""

from pathlib import Path

import numpy as np
from streaming import MDSWriter

LENGTH, VOCAB = 24, 61
KINDS = {"low": (0, 34), "high": (27, 61)}  # words of each; some are common to both


def write_kinds(folder: Path, kinds: str, *, length: int = LENGTH, seed: int = 0) -> str:
    """Samples ``{tokens}`` of these kinds, one letter each: ``l`` or ``h``."""
    rng = np.random.default_rng(seed)
    ranges = {"l": KINDS["low"], "h": KINDS["high"]}
    with MDSWriter(
        out=str(folder), columns={"tokens": "ndarray:uint16"}, size_limit=1 << 12
    ) as writer:
        for kind in kinds:
            writer.write({"tokens": rng.integers(*ranges[kind], length).astype(np.uint16)})
    return str(folder)


def mixed(count: int, seed: int = 1) -> str:
    """A quarter of the samples are high, at random places."""
    high = np.random.default_rng(seed).random(count) < 0.25
    return "".join("h" if one else "l" for one in high)


def is_high(tokens: np.ndarray) -> np.ndarray:
    """Which samples are high, for tokens of shape (..., length)."""
    return np.asarray(tokens).mean(axis=-1) > VOCAB / 2
