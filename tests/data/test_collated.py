"""Batches that the training process reads itself."""

import random

import torch

from attent_stream.data.collated import collated


class Numbers:
    """Samples that are their own ids."""

    shuffle_seed = 17

    def __getitem__(self, number: int) -> int:
        return number


def noisy(samples: list[int]) -> tuple[list[int], float, float]:
    return samples, torch.rand(()).item(), random.random()


def test_samples_are_collated_in_the_order_of_their_ids():
    assert collated(Numbers(), list, iter([7, 2, 2])) == [7, 2, 2]


def test_random_numbers_are_of_the_batch_and_leave_no_trace():
    torch.manual_seed(3)
    random.seed(3)
    undisturbed = torch.rand(()).item(), random.random()
    torch.manual_seed(3)
    random.seed(3)
    first = collated(Numbers(), noisy, [1, 2])
    assert (torch.rand(()).item(), random.random()) == undisturbed
    assert collated(Numbers(), noisy, [1, 2]) == first
    assert collated(Numbers(), noisy, [1, 3])[1] != first[1]
    assert collated(Numbers(), noisy, [1, 2], epoch=1)[1] != first[1]
