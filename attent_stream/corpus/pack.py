"""Pack tokens into samples, and assign documents to splits."""

import hashlib
from collections.abc import Sequence

import numpy as np


def token_dtype(max_id: int) -> str:
    """Return the smaller of 'uint16' and 'uint32' that holds ids up to `max_id`."""
    return "uint16" if max_id < 1 << 16 else "uint32"


def cut(tokens: Sequence[np.ndarray], seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut consecutive token arrays into samples.

    Args:
        tokens: 1-D arrays of one dtype.
        seq_len: Tokens in a sample.

    Returns:
        (n, seq_len) samples and the (< seq_len,) remainder, in the arrays' dtype.
    """
    joined = np.concatenate(tokens)
    count = len(joined) // seq_len
    return joined[: count * seq_len].reshape(count, seq_len), joined[count * seq_len :]


def split_of(text: str, fractions: Sequence[float]) -> int:
    """Return i with probability fractions[i], else len(fractions), by a hash of the text.

    Equal texts have the same split, so no copy of a held-out document is trained on. The hash is
    BLAKE2b with 64 bits.
    """
    if not fractions:
        return 0
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    value = int.from_bytes(digest, "big") / 2**64
    edges = np.cumsum(fractions)
    return int(np.searchsorted(edges, value, side="right"))
