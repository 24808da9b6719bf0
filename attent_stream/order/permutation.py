"""Keyed permutations of ``[0, n)`` and hashes as array arithmetic, without arrays of size n.

A Feistel network on ``Z_a x Z_b`` with ``a * b >= n`` and cycle walking (Black and Rogaway,
*Ciphers with Arbitrary Finite Domains*, CT-RSA 2002); its round function is the finalizer of
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Four rounds of a random function are a strong
pseudo-random permutation (Luby and Rackoff, 1988); this one is for shuffling, not for secrets.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ROUNDS = 4


def mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer, a bijection of uint64; same shape."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def keyed(*parts: ArrayLike) -> NDArray[np.uint64]:
    """Hash several non-negative integers, broadcast against each other, to uint64 keys."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mixed(key + _GOLDEN + np.asarray(part).astype(np.uint64))
    return key


def below(key: NDArray[np.uint64], size: ArrayLike) -> NDArray[np.int64]:
    """Map each key to an int64 in ``[0, size)``; ``size`` is 1 to 2**32."""
    return (((key >> _HALF) * np.asarray(size).astype(np.uint64)) >> _HALF).astype(np.int64)


def fractions(key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map each key to a float64 in [0, 1)."""
    return (key >> np.uint64(11)) * 2.0**-53


def permuted(index: NDArray[np.int64], size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Apply a keyed permutation of ``[0, size)`` to each index.

    Args:
        index: int64 of shape (n,), each in ``[0, size)``.
        size: Size of the permuted range, 1 to 2**62; one for all, or one for each index.
        key: uint64 key of the permutation; one for all, or one for each index.

    Returns:
        int64 of shape (n,); a bijection for one size and key.
    """
    size = np.broadcast_to(np.asarray(size, np.uint64), index.shape)
    key = np.broadcast_to(np.asarray(key, np.uint64), index.shape)
    image = _rounds(index.astype(np.uint64), size, key)
    outside = np.flatnonzero(image >= size)
    while len(outside):  # cycle walking: a cycle that starts inside comes back inside
        image[outside] = _rounds(image[outside], size[outside], key[outside])
        outside = outside[image[outside] >= size[outside]]
    return image.astype(np.int64)


def _rounds(
    index: NDArray[np.uint64], size: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    rows = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.uint64)
    columns = (size + rows - np.uint64(1)) // rows
    one = index // columns
    two = index - one * columns
    for number in range(_ROUNDS):
        even = number % 2 == 0
        source, limit, target = (two, rows, one) if even else (one, columns, two)
        key = key + _GOLDEN
        target = target + (((mixed(source + key) >> _HALF) * limit) >> _HALF)
        target = np.where(target >= limit, target - limit, target)
        one, two = (target, two) if even else (one, target)
    return one * columns + two
