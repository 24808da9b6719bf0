"""Hashed n-grams of samples: what ``resemblance`` counts (DSIR, Xie et al., NeurIPS 2023)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.model.batch import tokens_of

ABSENT = 65535  # no n-gram, where a sample is padded
BUCKETS = 65535
_LONGEST = 2  # tokens of an n-gram
_MIX = 0x9E3779B1  # odd: multiplied by it (modulo 2^32) neighbouring ids come to lie far apart


def ngram_ids(batch: Any) -> NDArray[np.uint16]:
    """Hash the tokens of each sample, and its pairs of neighbours, to ``BUCKETS``.

    Args:
        batch: A mapping with ``input_ids``, ints of shape (B, T), perhaps an ``attention_mask`` of
            the same shape.

    Returns:
        Bucket of each n-gram, uint16 of shape (B, 2 T - 1), ``ABSENT`` where a token is padding.

    Raises:
        ScoreError: No token ids.
    """
    tokens, known = tokens_of(batch, "score 'resemblance'")
    present = known.cpu().numpy()
    ids, length = tokens.cpu().numpy().astype(np.uint32), tokens.shape[1]
    found = []
    for n in range(1, _LONGEST + 1):
        starts = max(0, length - n + 1)
        hashed, whole = np.zeros((len(ids), starts), np.uint32), np.ones((len(ids), starts), bool)
        for place in range(n):
            hashed = hashed * np.uint32(_MIX) + ids[:, place : place + starts] + np.uint32(1)
            whole &= present[:, place : place + starts]
        # The upper half of the product depends on all bits.
        bucket = ((hashed * np.uint32(_MIX)) >> np.uint32(16)) % np.uint32(BUCKETS)
        found.append(np.where(whole, bucket, ABSENT).astype(np.uint16))
    return np.concatenate(found, axis=1)


def ngram_counts(ids: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Count n-grams.

    Args:
        ids: Buckets of any shape, as ``ngram_ids`` returns them.

    Returns:
        Shape (BUCKETS,).
    """
    return np.bincount(ids.reshape(-1), minlength=BUCKETS + 1)[:BUCKETS]
