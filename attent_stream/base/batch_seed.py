"""Seed the global generators for each batch by its samples, whichever process reads it.

Transforms and collate functions draw from the global generators of torch, numpy and Python. Seeded
for each batch, they draw the same numbers with any number of workers, with or without candidates
between lessons, and after a resume. This does not reach generators that a transform constructs for
itself.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.base.numpy_state import NumpyState

_numpy = NumpyState()


def seed_batch(seed: int, epoch: int, ids: NDArray[np.int64], pieces: int = 1) -> None:
    """Seed this process's global generators (torch on the CPU, numpy, Python) for the next batch.

    Args:
        seed: The data set's ``shuffle_seed``.
        epoch: The epoch's number.
        ids: The batch's sample ids in order, shape (n,), as in ``Posting.ids``.
        pieces: Number of pieces that each sample is cut into.
    """
    key = np.array([seed, epoch, pieces], np.int64).tobytes() + ids.astype(np.int64).tobytes()
    digest = blake2b(key, digest_size=20).digest()
    # torch.manual_seed would take 0.2 ms and seed the GPUs too.
    torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big"))
    random.seed(int.from_bytes(digest[8:16], "big"))
    np.random.seed(int.from_bytes(digest[16:], "big"))  # noqa: NPY002 (transforms draw from it)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore the CPU's global generators on exit, because training draws from them."""
    states = torch.get_rng_state(), random.getstate(), _numpy.get()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        _numpy.set(states[2])
