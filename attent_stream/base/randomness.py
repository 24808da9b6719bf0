"""The states of the random number generators that training draws from, as one tensor, for a resume
in mid-epoch.

Composer saves them too, but restores them only at an epoch's start where the data set resumes by
itself, so that a model with dropout would follow other noise after a resume than without one.
"""

import logging
import random

import numpy as np
import torch
from composer.utils import dist

log = logging.getLogger(__name__)
_KEY, _WORDS = 624, 625  # Mersenne Twister: its key, and in Python's own its place behind it


def random_state() -> torch.Tensor:
    """States of this process's generators (Python, numpy, torch on the CPU and on the current GPU),
    uint8 of shape (n,).
    """
    _, words, gauss = random.getstate()
    _, key, place, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (saved, not drawn from)
    parts = [
        np.array(words, np.uint32),
        np.array([np.nan if gauss is None else gauss, has_gauss, cached, place], np.float64),
        key.astype(np.uint32),
    ]
    states = [torch.from_numpy(np.frombuffer(part.tobytes(), np.uint8).copy()) for part in parts]
    states.append(torch.get_rng_state())
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def set_random_state(state: torch.Tensor) -> None:
    """Put the generators into a state that ``random_state`` told.

    Raises:
        ValueError: A state of another size: told on another kind of machine.
    """
    expected = len(random_state())
    if state.shape != (expected,):
        raise ValueError(
            f"expected the state of random numbers to have {expected} bytes, got shape "
            f"{tuple(state.shape)}"
        )
    data = state.cpu().contiguous()
    sizes = [4 * _WORDS, 8 * 4, 4 * _KEY]
    words, rest, key = (part.numpy().tobytes() for part in data[: sum(sizes)].split(sizes))
    gauss, has_gauss, cached, place = np.frombuffer(rest, np.float64)
    random.setstate(
        (
            3,
            tuple(np.frombuffer(words, np.uint32).tolist()),
            None if np.isnan(gauss) else float(gauss),
        )
    )
    numbers = ("MT19937", np.frombuffer(key, np.uint32), int(place), int(has_gauss), float(cached))
    np.random.set_state(numbers)  # noqa: NPY002 (what others draw from)
    cpu = len(torch.get_rng_state())
    torch.set_rng_state(data[sum(sizes) : sum(sizes) + cpu].clone())
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(data[sum(sizes) + cpu :].clone())


def restore_ranks(states: torch.Tensor) -> None:
    """Give this rank the random numbers that it had at a checkpoint, if as many ranks of the same
    kind go on.

    Args:
        states: Of all ranks then, uint8 of shape (ranks, n).
    """
    expected = (dist.get_world_size(), len(random_state()))
    if states.shape == expected:
        set_random_state(states[dist.get_global_rank()])
    else:
        log.info(
            "The checkpoint is of %d ranks or of other devices: random numbers (dropout) begin "
            "anew on these %d.",
            len(states),
            dist.get_world_size(),
        )
