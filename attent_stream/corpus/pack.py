"""Packing and splitting: pure functions, so that the corpus depends on its documents alone."""

import hashlib
from collections.abc import Sequence

import numpy as np


def token_dtype(max_id: int) -> str:
    """The smallest dtype of a token column that holds ids up to `max_id`: 'uint16' or 'uint32'."""
    return "uint16" if max_id < 1 << 16 else "uint32"


def cut(tokens: Sequence[np.ndarray], seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut pieces of one token sequence into samples.

    Args:
        tokens: 1-D arrays of one dtype that follow one another.
        seq_len: tokens in a sample.

    Returns:
        (n, seq_len) samples, and the (< seq_len,) remainder, in the dtype of the pieces.
    """
    joined = np.concatenate(tokens)
    count = len(joined) // seq_len
    return joined[: count * seq_len].reshape(count, seq_len), joined[count * seq_len :]


def split_of(text: str, fractions: Sequence[float]) -> int:
    """The split of a document by its content: i with probability fractions[i], else len(fractions),
    the rest.

    Equal texts always share a split, so a copy of a held-out document is never trained on. The hash
    is uniform in [0, 1): BLAKE2b, 64 bits.
    """
    if not fractions:
        return 0
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    value = int.from_bytes(digest, "big") / 2**64
    edges = np.cumsum(fractions)
    return int(np.searchsorted(edges, value, side="right"))
