"""Random numbers of a batch depend on its samples, its order, its epoch and nothing else."""

import random

import numpy as np
import torch

from attent_stream.base.batch_seed import random_numbers_kept, seed_batch


def draws():
    return [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002


def drawn(seed=1, epoch=2, ids=(3, 4), pieces=1):
    with random_numbers_kept():
        seed_batch(seed, epoch, np.array(ids), pieces)
        return draws()


def test_the_same_batch_draws_the_same():
    assert drawn() == drawn()
    others = [{"seed": 2}, {"epoch": 3}, {"ids": (4, 3)}, {"ids": (3,)}, {"pieces": 2}]
    every = [drawn(), *(drawn(**other) for other in others)]
    for one in range(3):
        assert len({values[one] for values in every}) == len(every)


def test_generators_are_left_as_they_were():
    with random_numbers_kept():
        expected = draws()
    with random_numbers_kept():
        draws()
        drawn()
    assert draws() == expected
